"""One sweep from a checked plan to its last line, in the driver's process."""
