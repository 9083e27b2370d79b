"""Predict loops: predictions for labelled examples, independent of the batch size and with nothing cut off."""
