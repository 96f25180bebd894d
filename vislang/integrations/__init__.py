"""vislang's models inside other programs."""
