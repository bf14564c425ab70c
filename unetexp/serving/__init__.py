"""A model over HTTP: images in, label maps, probabilities or overlays out, and a page to try it."""
