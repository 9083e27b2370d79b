"""A folder for each method."""
