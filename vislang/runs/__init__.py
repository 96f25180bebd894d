"""Running a recipe: its data, the run folder, training, and the evaluation at the end."""
