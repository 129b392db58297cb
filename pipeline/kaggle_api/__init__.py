"""Kaggle, through the genuine client in a child process: calls, credentials, and the script kernel that is pushed."""
