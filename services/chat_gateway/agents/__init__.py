"""What agents and templates are, and what they put prompts together with."""
