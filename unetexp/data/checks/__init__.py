"""What is wrong with a data set, what it does to the figures, and how to mend it."""
