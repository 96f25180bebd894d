"""Search over one's own images: an index of their vectors, exact search in it, and marks that correct a search."""
