"""Slurm as a context: `context` implements the protocol, with the modules below it."""
