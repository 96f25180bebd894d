"""ViLBERT: two streams with co-attention. Start with ``model.py``."""
