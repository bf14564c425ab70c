"""Which sample belongs to which split."""
