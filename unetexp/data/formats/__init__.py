"""What known data sets and their files look like, whichever source reads them."""
