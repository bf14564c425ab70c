"""Searchers and stopping rules, replayed on recorded learning curves."""
