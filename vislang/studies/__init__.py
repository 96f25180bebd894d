"""Claims of the field as experiments that anyone can run again."""
