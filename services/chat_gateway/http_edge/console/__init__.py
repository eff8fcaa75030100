"""The console: the page at `/console` and its files. It uses only the public API."""
