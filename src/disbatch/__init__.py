"""Run a file of shell commands over the computers a scientist has, and lose nothing."""

__version__ = "0.1.0"
