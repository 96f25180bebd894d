"""Frozen towers: language models and image encoders that are never trained; they are identified by a hash."""
