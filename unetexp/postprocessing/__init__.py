"""From probabilities to labels, beyond the most probable class of each pixel."""
