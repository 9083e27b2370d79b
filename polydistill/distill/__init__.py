"""Distillation: what a student sees of its teacher, what is asked of it, and how it is trained."""
