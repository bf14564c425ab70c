"""Peers that the train step is compared with, and how they are timed side by side."""
