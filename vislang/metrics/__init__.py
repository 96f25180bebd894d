"""Metrics: predictions in, Figures out; one file for each family of metrics."""
