"""The dual encoder: one vector for an image, one for a text. Start with ``model.py``."""
