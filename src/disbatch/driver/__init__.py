"""Carry out the plan: serve engines and clients, write the record."""
