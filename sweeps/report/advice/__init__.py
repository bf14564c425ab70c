"""What a sweep's trials say about the next one: stopping, further trials, dimensions, a recipe."""
