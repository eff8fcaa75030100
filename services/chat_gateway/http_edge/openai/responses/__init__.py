"""Responses: a turn of a session as OpenAI's Responses API has it."""
