"""Random views of training images: geometry, colour, further effects, named presets."""
