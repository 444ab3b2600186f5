"""The other end of a run: find it, ask its driver, and follow it over takeovers."""
