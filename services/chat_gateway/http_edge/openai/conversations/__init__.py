"""Conversations: sessions in OpenAI's Conversations API."""
