"""Conversions between the model's values and the contracts' messages, for edges and clients."""
