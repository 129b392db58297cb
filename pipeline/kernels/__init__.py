"""A training on Kaggle's machines: what is ordered, how it is packed, what runs there, what comes back."""
