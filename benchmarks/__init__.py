"""What the documentation's figures are measured with."""
