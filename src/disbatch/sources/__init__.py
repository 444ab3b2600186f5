"""Where task lines come from."""
