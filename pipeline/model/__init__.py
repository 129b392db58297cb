"""The models, their summary (`python -m pipeline.model`) and their weights files."""
