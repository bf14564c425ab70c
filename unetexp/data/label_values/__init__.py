"""What the values stored in masks mean."""
