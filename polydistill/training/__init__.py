"""Training: schedule, batches and checkpoints."""
