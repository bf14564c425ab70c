"""Volumes of CT and MRI: NIfTI files, their pairs, and slices of them as images."""
