"""A stand-in for Kaggle on 127.0.0.1, spoken to by the genuine client, and its embedded competition.

python -m pipeline.rehearsal -- COMMAND     runs COMMAND against it; nothing leaves the machine

__main__       the command line
standin        starts it all; the environment that leads the client to it (and the entry for tests)
server         HTTP: which request is which call, proxying, faults
connections    the transport: threads, TLS, bodies, ranges
replies        answers and refusals
service        the calls of Kaggle's competition API, JSON in and JSON out
kernels        scripts that are pushed to it, and really run here
faults         failures on demand: `CreateSubmission:status=500*1`
state          what it remembers between two invocations: submissions, uploads, the daily limit
scoring        the metric, and Kaggle's complaints about a CSV
catalog        the files that it serves, and the zip of all of them
digits         the embedded competition: 1,797 real handwritten digits, dressed as CIFAR-10
cifar_format   the competition's file formats, written
"""
