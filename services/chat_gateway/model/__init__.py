"""Values, rules and errors of turns."""
