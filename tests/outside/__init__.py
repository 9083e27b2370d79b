"""What somebody else's package could hold; nothing of polydistill knows of it."""
