"""The model card: what was promoted, why, and how well it does."""
