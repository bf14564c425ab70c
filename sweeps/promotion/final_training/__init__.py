"""The best settings of a sweep, trained to the end before they are promoted."""
