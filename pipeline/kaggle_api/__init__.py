"""Kaggle, through its own client.

client        the calls: time limits, typed answers and errors
child         the process in which the client runs, one a call
credentials   whether there are any, and what must not be printed
ledger_sync   Kaggle's list of submissions, written into the ledger
"""
