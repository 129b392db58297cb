"""The models, pixel normalisation, weights files and costs (`python -m pipeline.model`)."""
