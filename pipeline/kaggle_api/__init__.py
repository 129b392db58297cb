"""Kaggle, through its own client: the calls (client, which runs child in a process of its own), and the credentials."""
