"""Running trials with Ray."""
