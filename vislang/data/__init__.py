"""Records on disk become Examples, Examples become batches."""
