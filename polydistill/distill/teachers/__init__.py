"""What a student learns from: tuned models, several of them as one, or its own past."""
