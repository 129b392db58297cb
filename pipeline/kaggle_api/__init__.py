"""Kaggle, through its own client.

client        the calls: time limits, typed replies and errors
child         the process that runs the client, one per call
credentials   find and check them; hide secrets
ledger_sync   write Kaggle's list of submissions into the ledger
"""
