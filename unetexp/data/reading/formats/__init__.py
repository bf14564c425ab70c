"""The formats of image files, each decoded to its samples as stored."""
