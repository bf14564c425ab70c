"""Initial weights: where an encoder's come from, loading them, and what input they expect."""
