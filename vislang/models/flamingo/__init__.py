"""Flamingo: a frozen vision encoder and a frozen language model, bridged. Start with ``bridge.py``."""
