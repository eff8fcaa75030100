import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

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
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
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


HOSTILE = """
import logging, structlog
from servicekit.logs import configure
configure("info", {log_format!r})
text = "\\x1b[2J\\nforged\\r\\u202e\\x9b\\u2028end"
structlog.get_logger("a").info("said", user_id=text, more=[text])
structlog.get_logger("a").info(text)
logging.getLogger("aiohttp").warning("odd %s", text)
try:
    raise ValueError(text)
except ValueError:
    structlog.get_logger("a").exception("oops")
    logging.getLogger("asyncio").exception("oops")
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_what_callers_sent_neither_begins_a_line_nor_commands_a_terminal(log_format: str) -> None:
    script = HOSTILE.format(log_format=log_format)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=True)
    text = done.stderr.decode()
    assert set(text) & set("\x1b\r\u202e\x9b\u2028") == set()
    assert text.count("end") >= 6
    assert [line for line in text.splitlines() if line.startswith("forged")] == []
    assert text.count("said") == 1


GOAWAY = """
import asyncio, servicekit, grpc

async def hang(request, context):
    await asyncio.sleep(60)

async def lose_a_peer():
    server = grpc.aio.server()
    handlers = {"E": grpc.unary_unary_rpc_method_handler(hang)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.E", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/t.E/E")(b"")
        await channel.channel_ready()
        await asyncio.sleep(0.02)
        await server.stop(0)
        await call.code()
        await asyncio.sleep(0.02)

async def main():
    for _ in range(20):  # whether the core says it is a race
        await lose_a_peer()

asyncio.run(main())
"""


def test_grpcs_core_does_not_write_between_our_lines() -> None:
    done = subprocess.run([sys.executable, "-c", GOAWAY], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""


FOREIGN = """
import grpc
from grpc._cython import cygrpc
from servicekit.logs import configure
configure()
for _ in range(50):
    try:
        raise ValueError
    except ValueError:
        cygrpc._LOGGER.exception("Invalid encoding on %s", b"Bearer \\xff")
"""


def test_metadata_that_is_no_text_is_not_in_the_log_and_does_not_fill_it() -> None:
    done = subprocess.run([sys.executable, "-c", FOREIGN], capture_output=True, text=True, timeout=60, check=True)
    written = [json.loads(line) for line in done.stderr.splitlines()]
    assert {line["event"] for line in written} == {"grpc_metadata_not_utf8"}
    assert 1 <= len(written) < 50
    assert "Bearer" not in done.stderr
    assert "exception" not in done.stderr
