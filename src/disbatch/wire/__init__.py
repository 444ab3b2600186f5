"""Messages between driver and engines, and what carries them."""
