"""Scores of predictions: plain values in, Figures out. One file a family of metrics; no reader, no model."""
