"""Images on their way into the model: views for training, whole images for validation."""
