"""data2vec: one self-supervised objective for text, images and speech. Start with ``model.py``."""
