"""A context that is attached to a run whose driver is another process."""
