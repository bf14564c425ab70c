"""A sweep as data: recipe, search space, budget, early stopping and gates, checked as a whole."""
