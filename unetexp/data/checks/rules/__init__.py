"""What counts as a fault, one file for each kind: facts in, findings out."""
