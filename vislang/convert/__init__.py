"""Weights of other code, in and out."""
