"""Predict loops: what a model says of labelled examples, whatever the batch size, with nothing cut off."""
