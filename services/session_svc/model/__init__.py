"""Values, rules and errors of sessions and turns."""
