"""An offline dry run: a mock Kaggle server on 127.0.0.1 for the official client, and a competition of digits.

python -m pipeline.rehearsal -- COMMAND     run COMMAND against it; nothing leaves the machine

__main__   the command line
mock       starts the server; the environment that points the client to it
server     HTTP: requests to calls, authorisation
service    the replies of Kaggle's API, and the files
state      uploads, submissions, their scores and the daily limit
digits     the embedded competition: 1,797 handwritten digits, laid out like CIFAR-10
"""
