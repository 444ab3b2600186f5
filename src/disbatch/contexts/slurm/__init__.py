"""Slurm: a job's nodes as a context."""
