"""From local accuracy to the score on Kaggle: the ledger and the competition's published line."""
