"""The proof that a run trains with the settings that it was given, read back from what trains."""
