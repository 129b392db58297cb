"""Test doubles: a mock Kaggle server that fails on demand and runs kernels.

kaggle     faulty_kaggle starts it: pipeline.rehearsal's, with faults, Kaggle's own URL (TLS) and kernels
faults     what can fail: `CreateSubmission:status=500*1`
cpickle    CIFAR-10's batches, byte by byte as Python 2 wrote them
kernels    scripts that are pushed to it, and really run here
"""
