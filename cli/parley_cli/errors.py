"""What can go wrong on this machine; every error names the part and the remedy."""

from pathlib import Path


class LocalError(Exception):
    """Base of the errors that `parley` prints, line by line, and answers with exit code 1."""


class MissingPart(LocalError):
    """A program, module or file that this machine needs is not installed."""

    def __init__(self, part: str, remedy: str) -> None:
        super().__init__(f"{part} is missing: {remedy}")


class PortTaken(LocalError):
    """Another process listens on a port that a child needs."""

    def __init__(self, name: str, port: int, setting: str | None = None) -> None:
        hint = f"; free it or set {setting}" if setting else ""
        super().__init__(f"{name}: port {port} is taken{hint}")
        self.port = port


class ChildDied(LocalError):
    """A child ended by itself; names its log and the last line in it."""

    def __init__(self, name: str, exit_code: int, log: Path, last_line: str) -> None:
        how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
        said = f": {last_line}" if last_line else ""
        super().__init__(f"{name} {how} (log {log}){said}")
        self.exit_code = exit_code


class NotReady(LocalError):
    """A child runs, but did not become ready in time."""

    def __init__(self, name: str, seconds: float, log: Path, last_line: str) -> None:
        said = f": {last_line}" if last_line else ""
        super().__init__(f"{name} was not ready after {seconds:g} s (log {log}){said}")


class DataInUse(LocalError):
    """Another process already serves this data directory."""

    def __init__(self, data: Path, owner: str) -> None:
        super().__init__(f"{data} is in use by {owner}")
