"""A recipe from the data: what was looked at, what follows from it, and why."""
