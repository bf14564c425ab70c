"""Exports that are promoted beside the weights."""
