import json
import subprocess
import sys

import pytest

SCRIPT = """
import logging, structlog
from servicekit.logs import configure
configure({level!r}, {log_format!r})
log = structlog.get_logger("a")
log.debug("quiet")
log.info("said", session_id="s")
logging.getLogger("grpc").warning("hm %s", 1)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("oops")
"""


def lines(level: str, log_format: str) -> list[str]:
    script = SCRIPT.format(level=level, log_format=log_format)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_is_one_object_a_line_also_from_the_standard_library() -> None:
    said, hm, oops = (json.loads(line) for line in lines("info", "json"))
    assert (said["event"], said["level"], said["session_id"]) == ("said", "info", "s")
    assert (hm["event"], hm["level"], hm["logger"]) == ("hm 1", "warning", "grpc")
    assert "ZeroDivisionError" in oops["exception"]
    assert said["timestamp"].endswith("Z")


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_the_level_holds_for_both(level: str, count: int) -> None:
    assert len(lines(level, "json")) == count


def test_the_console_format_is_for_reading() -> None:
    assert "said" in lines("info", "console")[0]
    assert not lines("info", "console")[0].startswith("{")
