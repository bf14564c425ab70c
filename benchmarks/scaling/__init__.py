"""What the benchmark of scale trains, and how much a search remembers."""
