"""Sparse fine-tunings: files, weights and training."""
