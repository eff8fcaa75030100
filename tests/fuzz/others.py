"""What remote agents, tool servers and agents' files say, ids and cursors that come back, and sessions in Redis."""

import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from chat_gateway.a2a.ids import parse_task_id, task_id
from chat_gateway.a2a.listing import _place_of
from chat_gateway.model.journal import event_place
from chat_gateway.tools.a2a.answers import RemoteTask
from chat_gateway.tools.a2a.card import remote_agent
from chat_gateway.tools.a2a.client import _decoded
from chat_gateway.tools.mcp_plain import answer_of
from chat_gateway.tools.server import ServerUnavailable
from parley_cli.declared.agent_file import AgentFile, BadFile
from session_svc.edge.session_convert import session
from session_svc.model.errors import SessionDamaged
from session_svc.model.session import SessionKey
from session_svc.redis_store.script_replies import SessionFields
from session_svc.redis_store.session_codec import session_of
from tests.fuzz.inputs import damaged, foreign, text_of, with_foreign_members

_URL = "https://agent.example/a2a"
_INTERFACE = {"url": _URL, "protocolBinding": "JSONRPC", "protocolVersion": "1.0", "tenant": "t"}
_CARD = {"name": "a", "description": "b", "supportedInterfaces": [_INTERFACE], "capabilities": {"streaming": True}}
_PART: list[dict[str, Any]] = [{"text": "hi"}, {"data": {"a": [1]}}, {"file": {"name": "f", "uri": "x"}}]
_STATUS = {"state": "TASK_STATE_COMPLETED", "message": {"messageId": "m", "parts": _PART}}
_TASK = {"id": "t", "contextId": "c", "status": _STATUS, "artifacts": [{"artifactId": "x", "parts": _PART}]}
_UPDATE = {"taskId": "t", "artifact": {"artifactId": "x", "parts": _PART}, "append": True, "status": _STATUS}
_ANSWERS = [{"task": _TASK}, {"message": {"taskId": "t", "parts": _PART}}, {"artifactUpdate": _UPDATE}]
_CALLED = {
    "jsonrpc": "2.0",
    "id": 1,
    "result": {"content": [{"type": "text", "text": "a"}], "structuredContent": {"a": 1}, "isError": False},
}
_AGENT = b"id: a\nlabels: &x {a: b}\nmodel:\n  name: m # c\nparameters: *x\ninstructions: |\n  Hi\n  ho\n"
_FIELDS = SessionFields(
    b"a", b"u", b"ann", b"1700000000000", b"1700000000001", b"1000", b"1700000009000", b"1700000001001",
    *(b"1", b"2", b"4", b"3", b"4", b"0", b"7", b"7", b'{"a":"b"}', b"2:d", b"0", b"0", b"9", b"t", b"t", b'["c"]'),
)  # fmt: skip

cards = foreign(json.dumps(_CARD).encode()) | with_foreign_members(_CARD) | with_foreign_members(_INTERFACE).map(
    lambda one: b'{"supportedInterfaces": [%s]}' % one
)  # fmt: skip
_member = st.sampled_from([("task", _TASK), ("statusUpdate", _UPDATE), ("artifactUpdate", _UPDATE)]).flatmap(
    lambda named: with_foreign_members(named[1]).map(lambda one: b'{"%s": %s}' % (named[0].encode(), one))
)
remote_answers = st.lists(foreign(*(json.dumps(one).encode() for one in _ANSWERS)) | _member, max_size=4)
tool_answers = foreign(json.dumps(_CALLED).encode()) | with_foreign_members(_CALLED)
agent_files = damaged(_AGENT, b"%YAML 1.2\n---\n? [a]\n: !!set {b}\n<<: {c: 0x1F, d: 2001-01-01, e: .nan}\n")
ids = foreign(b"turn.session", b"1700000000000-0", b"MTcwMDAwMDAwMCB0LnM=", b"99-18446744073709551616").map(text_of)
_numbers = st.sampled_from([b"", b"-1", b"9" * 30, b"nan", b"1.5", b"\xff", b"253402300800000", b"9223372036854775808"])
_field = _numbers | st.none() | foreign(b'{"a":"b"}', b'["c"]', b'{"a":1}', b'{"a":"\\ud800"}')
sessions = st.dictionaries(st.sampled_from(SessionFields._fields), _field, max_size=4)


def agent_card(data: bytes) -> None:
    """An agent is called at the origin that the operator or author gave, whatever its card says."""
    with suppress(ServerUnavailable, ValueError):
        card = _decoded(data)
        if isinstance(card, dict):
            assert remote_agent(card, _URL).url.startswith("https://agent.example")


def remote_task(answers: list[bytes]) -> None:
    task = RemoteTask()
    for data in answers:
        with suppress(ValueError):
            task.take(_decoded(data))
    task.result().text.encode("utf-8", "surrogatepass")


def tool_answer(data: bytes) -> None:
    answer = answer_of(data, 1)
    assert answer is None or isinstance(answer.text, str)


def returned_id(text: str) -> None:
    """Ids of tasks and events and cursors of lists, which callers keep: read as they were made, or None."""
    if ref := parse_task_id(text):
        assert parse_task_id(task_id(*ref)) == ref
    for place in (event_place(text), _place_of(text)):
        assert place is None or isinstance(place, tuple)


def agent_file(data: bytes) -> None:
    """Whatever a file holds is JSON with problems, or no agent."""
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file, suppress(BadFile):
        file.write(data)
        file.flush()
        content, _ = AgentFile(Path(file.name)).content()
        json.dumps(content, allow_nan=False, ensure_ascii=False).encode()


def stored_session(changed: dict[str, bytes | None]) -> None:
    """A session that can be decoded can be returned to callers."""
    with suppress(SessionDamaged):
        session(session_of(SessionKey("p", "s"), _FIELDS._replace(**changed)))  # type: ignore[arg-type]
