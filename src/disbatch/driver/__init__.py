"""Performs the plan's actions: serves engines, writes the record."""
