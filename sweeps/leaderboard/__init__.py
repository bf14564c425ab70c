"""Trials as a table: filtered, ranked, printed and exported."""
