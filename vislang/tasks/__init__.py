"""One file a task family: its readers, its metric."""
