"""The genuine Kaggle client in a child process, credentials, and the submission's format."""
