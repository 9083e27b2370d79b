"""Runs: stages, the folder of an unfinished run, and its end."""
