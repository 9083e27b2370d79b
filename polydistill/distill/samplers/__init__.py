"""How often each language is seen."""
