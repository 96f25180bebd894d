"""Conversion of other projects' checkpoints, and export."""
