"""What `parley up` shows a newcomer with, each in a file to copy from."""

from pathlib import Path


def tool_server_file() -> Path:
    """Returns the program of the sample tool server."""
    return Path(__file__).with_name("tool_server.py")
