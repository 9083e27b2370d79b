"""Recipes: several commands as one file, one folder and one record."""
