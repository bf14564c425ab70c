"""The scripts that measure the numbers in the documentation."""
