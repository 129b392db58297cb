"""The models, how pixels are normalised for them, their weights files; what they cost (`python -m pipeline.model`)."""
