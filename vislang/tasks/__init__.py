"""Tasks: examples by split, a wording, a metric; one file a benchmark. Read task.py first; catalogue.py names them all."""
