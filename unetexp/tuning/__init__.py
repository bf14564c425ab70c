"""Postprocessing that is tuned on validation, and kept only where it was measured to help."""
