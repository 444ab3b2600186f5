"""The version of disbatch."""

VERSION = "0.1.0"
