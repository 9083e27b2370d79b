"""Metrics, and the statistics that compare them: scores are functions of numbers per item, to be resampled."""
