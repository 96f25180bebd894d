"""Parts that models share. Imports torch and nothing of vislang outside this package."""
