"""Agents, templates, prompts and the tool loop."""
