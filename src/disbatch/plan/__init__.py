"""Decisions: which task goes to which engine, and when. Pure."""
