"""Options: one declaration for the flag, the TOML key, the range and the record."""
