"""Makes the virtual environment that every make target uses, showing how far it is: install.py FOLDER.

Runs on the bare Python of the machine, so it imports the standard library only.
"""

import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

OLDEST = (3, 11)
BAR = 30
LOCKED = Path("constraints.txt")


class Progress:
    """One line that moves, or on a dumb output one line at the start and one at the end."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._start = time.monotonic()
        self._moves = sys.stdout.isatty()
        if not self._moves:
            print(f"installing {total} packages into .venv", flush=True)

    def advance(self, what: str) -> None:
        """Counts one more package."""
        self._done = min(self._done + 1, self._total)
        self.show(what)

    def show(self, what: str) -> None:
        """Says what is going on now."""
        if self._moves:
            filled = BAR * self._done // self._total
            bar = "█" * filled + "░" * (BAR - filled)
            print(f"\r\x1b[2Kinstalling {bar} {self._done}/{self._total} {what[:40]}", end="", flush=True)

    def finish(self) -> None:
        """Ends the line."""
        end = "\r\x1b[2K" if self._moves else ""
        print(f"{end}installed .venv in {time.monotonic() - self._start:.0f} s", flush=True)


def pip(python: Path, progress: Progress, *arguments: str) -> None:
    """Runs one `pip install`; exits with pip's last words when it fails."""
    quiet = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")
    command = [str(python), "-m", "pip", "install", *quiet]
    words: deque[str] = deque(maxlen=15)
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            words.append(line.rstrip())
            if line.startswith("Collecting "):
                progress.advance(line.split()[1])
            elif line.startswith("Installing collected packages"):
                progress.show("unpacking")
    if process.returncode != 0:
        print("", *words, sep="\n", file=sys.stderr)
        sys.exit(f"pip could not install Parley's packages (exit code {process.returncode}, its last lines above)")


def main() -> None:
    """Makes the environment; whatever stands in the folder is completed, not trusted."""
    if sys.version_info < OLDEST:
        sys.exit(f"Parley needs Python 3.11 or newer, this is {sys.version.split()[0]}; set PYTHON=/path/to/python3")
    folder = Path(sys.argv[1])
    made = subprocess.run([sys.executable, "-m", "venv", str(folder)], check=False)
    if made.returncode != 0:
        sys.exit(f"python3 -m venv {folder} failed (on Debian and Ubuntu the package python3-venv is needed)")
    locked = [line for line in LOCKED.read_text().splitlines() if "==" in line]
    progress = Progress(len(locked))
    python = folder / "bin" / "python"
    os.environ.pop("PYTHONPATH", None)
    # The lock is whole (tests/unit/test_lock.py), so nothing is looked up that it does not have a hash for.
    pip(python, progress, "--require-hashes", "--no-deps", "-r", str(LOCKED))
    pip(python, progress, "--no-deps", "--no-build-isolation", "-e", ".")
    progress.finish()


if __name__ == "__main__":
    main()
