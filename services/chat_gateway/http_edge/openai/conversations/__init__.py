"""Conversations: a session as OpenAI's Conversations API has it."""
