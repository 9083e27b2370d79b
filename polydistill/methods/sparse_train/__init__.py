"""Sparse fine-tuning."""
