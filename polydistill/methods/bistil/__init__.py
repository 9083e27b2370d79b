"""BiStil."""
