"""The files of a run: names, lock, journal, status file, resume index, saved output."""
