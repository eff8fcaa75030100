"""`parley top`: what every replica does now, read from its metrics."""
