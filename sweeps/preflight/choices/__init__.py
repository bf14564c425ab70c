"""How trials compute, chosen by timing their steps: numbers, layout, compiling, trials at once."""
