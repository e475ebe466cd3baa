"""Real driving from the front camera. There is no reader of the data; plans of the training step need none."""
