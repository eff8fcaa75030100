"""Providers that speak Gemini's own API: generateContent and streamGenerateContent."""
