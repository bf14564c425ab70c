"""Whether a choice holds with other seeds: the best trials are trained again."""
