"""Files that somebody else wrote or named: read whole, within bounds of size and time."""

import errno
import os
import select
import stat
import time
from pathlib import Path

PIPE_SECONDS = 60.0
_CHUNK = 64 * 1024
_POLL_SECONDS = 0.05


def read_file(path: Path | str, max_bytes: int, *, pipe_seconds: float = PIPE_SECONDS) -> bytes:
    """Returns the content of a file, or what comes through a pipe until its writers have closed it.

    Raises `OSError`, with a text in `strerror`, for what can't be read, is larger than `max_bytes` (a device such as
    `/dev/zero` is), or is a pipe that is not closed, or that nobody writes to, for `pipe_seconds`.
    """
    return _read(path, max_bytes, pipe_seconds)


def read_regular_file(path: Path | str, max_bytes: int) -> bytes:
    """Returns the content of a regular file, which can be read again. Raises `OSError` as `read_file` does."""
    return _read(path, max_bytes, None)


def read_text_file(path: Path | str, max_bytes: int) -> str:
    r"""Returns text in UTF-8 as `read_file`, without a byte order mark, and with each end of a line as `\n`.

    Raises `OSError` and `UnicodeDecodeError`.
    """
    text = read_file(path, max_bytes).decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read(path: Path | str, max_bytes: int, pipe_seconds: float | None) -> bytes:
    # Opening a pipe that nobody writes to waits for ever otherwise.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if pipe_seconds is None and not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        return _content(descriptor, max_bytes, pipe_seconds or 0, awaited=stat.S_ISFIFO(mode))
    finally:
        os.close(descriptor)


def _content(descriptor: int, max_bytes: int, pipe_seconds: float, *, awaited: bool) -> bytes:
    """Reads to the end; `awaited`: an end before the first byte says that there is no writer yet."""
    found = bytearray()
    deadline = time.monotonic() + pipe_seconds
    while True:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            data = None
        if data:
            found += data
            if len(found) > max_bytes:
                raise OSError(errno.EFBIG, f"is larger than {max_bytes} bytes")
        elif data is not None and (found or not awaited):
            return bytes(found)
        else:
            left = deadline - time.monotonic()
            if left <= 0:
                raise OSError(errno.ETIMEDOUT, "is a pipe that nobody writes to or closes")
            if data is None:
                select.select([descriptor], [], [], left)
            else:
                time.sleep(min(_POLL_SECONDS, left))
