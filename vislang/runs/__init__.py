"""What a recipe does: its data, its run folder, training, and the scores at the end."""
