"""Files that somebody else named: pipes, devices and directories neither stop a process nor fill its memory."""

import errno
import os
import threading
from pathlib import Path

import pytest

from servicekit.files import read_file, read_regular_file, read_text_file

LIMIT = 100_000


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_file_is_read_whole_up_to_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * LIMIT)
    assert read_file(file, LIMIT) == read_regular_file(file, LIMIT) == b"x" * LIMIT
    with pytest.raises(OSError, match="is larger than 99999 bytes"):
        read_file(file, LIMIT - 1)


def test_a_device_without_an_end_is_too_large_and_one_without_content_empty() -> None:
    with pytest.raises(OSError, match="is larger than"):
        read_file("/dev/zero", LIMIT)
    assert read_file("/dev/null", LIMIT) == b""


def test_what_can_not_be_read_again_is_no_regular_file(tmp_path: Path, pipe: Path) -> None:
    for path in ("/dev/zero", "/dev/null", pipe):
        with pytest.raises(OSError, match="is not a regular file"):
            read_regular_file(path, LIMIT)
    for read in (read_file, read_regular_file):
        with pytest.raises(IsADirectoryError, match="Is a directory"):
            read(tmp_path, LIMIT)


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(OSError, match="symbolic links") as raised:
        read_file(tmp_path / "a", LIMIT)
    assert raised.value.errno == errno.ELOOP


def test_a_pipe_is_read_until_its_writer_closes_it(pipe: Path) -> None:
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"y" * LIMIT))
    writer.start()
    assert read_file(pipe, LIMIT) == b"y" * LIMIT
    writer.join()


def test_a_pipe_that_nobody_writes_to_or_closes_is_given_up(pipe: Path) -> None:
    with pytest.raises(OSError, match="is a pipe that nobody"):
        read_file(pipe, LIMIT, pipe_seconds=0.1)
    held = os.open(pipe, os.O_RDWR)
    try:
        os.write(held, b"z")
        with pytest.raises(OSError, match="is a pipe that nobody"):
            read_file(pipe, LIMIT, pipe_seconds=0.1)
    finally:
        os.close(held)


def test_text_may_begin_with_a_mark_and_end_lines_in_any_way(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text_file(file, LIMIT) == "a\nb\nc\n"
    file.write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        read_text_file(file, LIMIT)
