"""Displays of a run: each renders a view of the same state."""
