"""The rehearsal: a mock Kaggle server on 127.0.0.1, which the genuine client talks to, and a competition of digits.

python -m pipeline.rehearsal -- COMMAND     runs COMMAND against it; nothing leaves the machine

__main__   the command line
mock       starts the server; the environment that leads the client to it
server     HTTP: which request is which call, and who may ask
service    what Kaggle's API answers, and the files that it serves
state      uploads, submissions, their scores and the daily limit
digits     the embedded competition: 1,797 handwritten digits, laid out like CIFAR-10
"""
