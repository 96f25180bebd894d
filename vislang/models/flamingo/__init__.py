"""Flamingo: a frozen vision encoder and a frozen language model, bridged. Start with ``bridge.py``: its ``forward`` is
the paper's definition. ``model.py`` puts towers, tokenizer and prompts around it."""
