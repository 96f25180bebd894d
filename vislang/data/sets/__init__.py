"""Readers of the data sets that :mod:`vislang.data.fetch` brings, one file a set."""
