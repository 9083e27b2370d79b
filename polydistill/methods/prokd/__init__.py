"""ProKD."""
