"""The other end of a run: find it, ask its driver, follow it whoever drives it."""
