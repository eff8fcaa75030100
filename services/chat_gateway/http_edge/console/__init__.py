"""The console: the page at `/console`, and the files that it is made of. What it shows, it asks the public API for."""
