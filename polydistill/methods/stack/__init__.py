"""MT-LLM."""
