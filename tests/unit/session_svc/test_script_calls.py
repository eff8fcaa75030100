"""The names of what scripts take and reply are the same in Lua and in Python."""

import re
from importlib import resources
from typing import Any

import pytest

from session_svc.redis_store.script_calls import OTHER_CALLS, SESSION_CALLS, Begin, Call, script_of
from session_svc.redis_store.script_replies import REPLIES, BeginOk, SessionFields, reply_of
from session_svc.redis_store.script_runner import SHARED_SOURCES

FOLDER = resources.files("session_svc.redis_store") / "scripts"
CALLS = (*SESSION_CALLS, *OTHER_CALLS)
ARGUMENTS = re.compile(r"^local ([\w,\s]+?) = unpack\(ARGV(?:, 1, (\d+))?\)$", re.MULTILINE)
DECLARED = re.compile(r"^-- Reply (\w+)(?:: ([\w, ]+))?$", re.MULTILINE)
MADE = re.compile(r"(?:return \{|refuse\()'(\w+)'((?:[^{}()]|\([^{}()]*\))*)[})]")


def source(name: str) -> str:
    return (FOLDER / f"{name}.lua").read_text("utf-8")


def names(text: str | None) -> list[str]:
    return re.findall(r"\w+", text or "")


def test_every_script_has_its_arguments_in_the_table() -> None:
    files = {entry.name for entry in FOLDER.iterdir()}
    assert files == {f"{script_of(call)}.lua" for call in CALLS} | {f"{name}.lua" for name in SHARED_SOURCES}


@pytest.mark.parametrize("call", CALLS, ids=script_of)
def test_arguments_have_the_names_that_the_script_gives_them(call: Any) -> None:
    text = source(script_of(call))
    found = ARGUMENTS.findall(text)
    assert [names(listed) for listed, _ in found] == ([list(call._fields)] if call._fields else [])
    # Beyond those that have names only a script that says where they end reads more.
    numbered = re.findall(r"ARGV\[(\w+)", text)
    assert not numbered or (found[0][1] == str(len(call._fields)) and set(numbered) == {"index"})


@pytest.mark.parametrize("call", CALLS, ids=script_of)
def test_replies_have_the_names_that_the_script_gives_them(call: Any) -> None:
    text = source(script_of(call))
    declared = {word.encode(): names(listed) for word, listed in DECLARED.findall(text)}
    assert declared == {word: list(reply._fields) for word, reply in REPLIES.get(call, {}).items()}


@pytest.mark.parametrize("call", REPLIES, ids=script_of)
def test_a_script_makes_the_replies_that_it_declares(call: type[Call]) -> None:
    text = source(script_of(call))
    made = MADE.findall(text)
    assert made
    declared = {word.decode(): len(reply._fields) for word, reply in REPLIES[call].items()}
    for word, values in made:
        flat = re.sub(r"\([^()]*\)", "", values)
        assert flat.count(",") == declared[word], (word, values)
    # `lost` says which of two it is.
    assert {word for word, _ in made} | ({"interrupted", "lost"} if "{lost(token)}" in text else set()) == set(declared)


def test_the_fields_of_a_session_stand_in_the_order_of_the_script() -> None:
    text = source("prelude")
    listed = re.search(r"fields = \{(.*?)\}", text, re.DOTALL)
    assert listed is not None
    assert re.findall(r"v\.(\w+)", listed[1]) == list(SessionFields._fields)
    places = re.search(r"^local ACTIVITY, IDLE, CAP, EXPIRE = (.*)$", text, re.MULTILINE)
    assert places is not None
    wanted = [SessionFields._fields.index(name) + 1 for name in ("activity", "idle", "cap", "expire")]
    assert [int(place) for place in places[1].split(",")] == wanted


def test_a_reply_is_read_by_its_word() -> None:
    assert reply_of(Begin, [b"ok", 7, 8, 9, 1, [], 0]) == BeginOk(
        7, expire_ms=8, left_ms=9, created=1, session=[], children=0
    )
    with pytest.raises(KeyError):
        reply_of(Begin, [b"unheard of"])
