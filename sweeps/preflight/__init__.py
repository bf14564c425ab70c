"""Tried and measured before the budget is spent."""
