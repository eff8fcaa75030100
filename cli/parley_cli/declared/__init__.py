"""Agents that are declared in files: reading them, planning what to change, and writing them back."""
