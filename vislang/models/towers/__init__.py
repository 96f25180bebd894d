"""Frozen towers: language models and image encoders that are found, opened, fingerprinted and never trained."""
