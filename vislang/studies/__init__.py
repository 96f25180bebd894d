"""Experiments on published claims, which anyone can run again."""
