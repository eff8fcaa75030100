"""The parts of a remote agent's card that callers need."""

from collections.abc import Mapping
from typing import Any, Final

from yarl import URL

from chat_gateway.tools.offered import Offer, OfferedTool, offer
from chat_gateway.tools.secrets import Redaction
from chat_gateway.tools.server import ServerUnavailable
from servicekit.values import value

CARD_PATH: Final = "/.well-known/agent-card.json"
VERSION: Final = "1.0"
_BINDINGS: Final = ("JSONRPC", "HTTP+JSON")
_MAX_INTERFACES: Final = 64
_MAX_SKILLS: Final = 32


@value
class RemoteAgent:
    """Where an agent is called, and how."""

    url: str
    binding: str
    streaming: bool
    tenant: str = ""


def remote_agent(card: Mapping[str, Any], url: str) -> RemoteAgent:
    """Returns where the agent of a card is called: at the origin of `url`, since credentials belong to one.

    Raises `ServerUnavailable`.
    """
    interfaces = card.get("supportedInterfaces")
    wanted = URL(url).origin()
    found: dict[str, RemoteAgent] = {}
    for one in (interfaces if isinstance(interfaces, list) else [])[:_MAX_INTERFACES]:
        binding, version = _text(one, "protocolBinding").upper(), _text(one, "protocolVersion")
        if binding in _BINDINGS and binding not in found and version.split(".")[:2] in ([""], ["1", "0"], ["1"]):
            try:
                same = URL(_text(one, "url")).origin() == wanted
            except ValueError:
                continue
            if same:
                streaming = _object(card, "capabilities").get("streaming") is True
                found[binding] = RemoteAgent(_text(one, "url"), binding, streaming, _text(one, "tenant"))
    for binding in _BINDINGS:
        if binding in found:
            return found[binding]
    raise ServerUnavailable(f"has a card without an address of JSON-RPC or REST, in A2A {VERSION}, at {wanted}")


def offered(card: Mapping[str, Any], name: str, redaction: Redaction) -> Offer:
    """Returns the one tool that an agent is."""
    said = f"Asks the agent {_text(card, 'name') or name}, which has no knowledge of this conversation but what it is "
    said += f"told. {_text(card, 'description')}"
    skills = card.get("skills")
    for skill in (skills if isinstance(skills, list) else [])[:_MAX_SKILLS]:
        if shown := _text(skill, "description") or _text(skill, "name"):
            said += f"\n- {shown}"
    return offer([OfferedTool(name, said, PARAMETERS)], redaction.clean)


PARAMETERS: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "message": {"type": "string", "description": "What to tell the agent."},
        "task_id": {
            "type": "string",
            "description": "The task that the message answers, where an earlier result asked for more and named it.",
        },
    },
    "required": ["message"],
    "additionalProperties": False,
}


def _text(one: Any, name: str) -> str:
    found = one.get(name) if isinstance(one, Mapping) else None
    return found if isinstance(found, str) else ""


def _object(one: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = one.get(name)
    return found if isinstance(found, Mapping) else {}
