"""What the chaos benchmark is made of: faults, the sweep and server they hit, the verdict."""
