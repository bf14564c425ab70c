"""Decoded data sets on this machine."""
