"""The owner's side: accept, store, show.

One process by default; behind each seam an engine for those who outgrow it.
"""
