"""Regions of an image: from files, from the grid of a tower, from a detector, or from clusters."""
