"""Encoders, decoders, the U-Net, weights, and models on disk."""
