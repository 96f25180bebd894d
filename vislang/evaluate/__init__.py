"""Scores of models on tasks, and the page that shows them."""
