"""The datum's road from an accepted message to a stored row or a named refusal. One type per station."""
