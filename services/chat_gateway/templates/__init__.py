"""Templates: the kinds of agent that this gateway can build."""
