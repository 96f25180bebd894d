"""Tasks: examples by split, a wording, a metric. One file a benchmark; read task.py first, then catalogue.py."""
