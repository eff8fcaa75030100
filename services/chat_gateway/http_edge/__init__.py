"""The HTTP edge: OpenAI's chat completions, the admin API, health, metrics and documentation."""
