"""Files on disk: found, paired, hashed."""
