"""One loop for every model; schedules, checkpoints and logs beside it."""
