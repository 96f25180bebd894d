"""One test file for each benchmark: a small folder in its official format, and its metric by hand.

Each file has a ``FAMILY``; ``test_every_family.py`` tests all of them in the same ways.
"""
