"""What all three services need and no domain word: settings, lifecycle, server, channels, errors, logs, metrics."""
