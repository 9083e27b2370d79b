"""Other inputs made of the training data, whose labels the teacher gives."""
