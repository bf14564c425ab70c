"""What lies in a folder that somebody brings: which files are images, masks, splits."""
