"""Decoded images and masks of a split: memory-mapped, picklable, cheap to crop."""
