"""Copies of an image that are not equal byte for byte: saved again, turned, cut, brightened."""
