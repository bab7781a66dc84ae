"""One module per page, named by its noun."""
