"""What a person types: one module per command, and `main`, which finds them."""
