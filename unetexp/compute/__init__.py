"""How a run computes: devices, precision and layout, several processes on one model."""
