"""The card of an agent, made from its config: what it is called, what it can do, and where it is called."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

from a2a.types import a2a_pb2 as pb
from google.protobuf.json_format import MessageToJson

from chat_gateway.a2a.calls import VERSION, A2ACall
from chat_gateway.a2a.content import INPUT_MODES, OUTPUT_MODES
from chat_gateway.a2a.errors import UnsupportedOperation
from chat_gateway.a2a.tasks import TOOL_CALLS_EXTENSION
from chat_gateway.clients.stubs import Stubs
from parley.config.v1 import agent_config_pb2 as config_pb
from parley.config.v1 import agent_config_service_pb2 as service_pb
from servicekit.channels import Peer
from servicekit.values import value

DESCRIPTION_LABEL: Final = "a2a.description"
SKILL_LABEL: Final = "a2a.skill/"
PATH: Final = "/a2a/{agent}"
_BEARER: Final = "bearer"


@value
class A2AAddresses:
    """Where callers reach this gateway, as cards have it. Empty: where the card is asked for; gRPC is then left out."""

    http_url: str = ""
    grpc_url: str = ""


class AgentCards:
    """Makes cards. `guarded`: calls need credentials."""

    def __init__(self, stubs: Stubs, config_svc: Peer, addresses: A2AAddresses, *, guarded: bool) -> None:
        self._configs = stubs.agent_configs
        self._config_svc = config_svc
        self._addresses = addresses
        self._guarded = guarded

    async def card(self, call: A2ACall, base_url: str) -> pb.AgentCard:
        """Returns the card; `base_url` is where it was asked for. Raises `RemoteError` (AGENT_NOT_FOUND)."""
        config = await self._config(call)
        card = self._card(config, self._addresses.http_url or base_url)
        card.skills.extend([_main_skill(config), *_labelled_skills(config)])
        return card

    async def extended(self, call: A2ACall, base_url: str) -> pb.AgentCard:
        """Returns the card with a skill for each tool that the agent's config names.

        Raises `UnsupportedOperation` where the card says that there is no other one: where nobody is authenticated, and
        without such tools.
        """
        if not self._guarded:
            raise UnsupportedOperation("there is an extended card only where callers are authenticated")
        config = await self._config(call)
        skills = list(_tool_skills(config.tools))
        if not skills:
            raise UnsupportedOperation("the agent has no tools, and its card says all")
        card = self._card(config, self._addresses.http_url or base_url)
        card.skills.extend([_main_skill(config), *_labelled_skills(config), *skills])
        return card

    async def _config(self, call: A2ACall) -> config_pb.AgentConfig:
        request = service_pb.GetAgentConfigRequest(project=call.project, id=call.agent_id)
        return (await self._config_svc.call(self._configs.GetAgentConfig, request)).agent_config

    def _card(self, config: config_pb.AgentConfig, http_url: str) -> pb.AgentCard:
        url = http_url.rstrip("/") + PATH.format(agent=config.id)
        card = pb.AgentCard(
            name=config.display_name or config.id,
            description=config.labels.get(DESCRIPTION_LABEL) or f"The agent {config.display_name or config.id}.",
            version=str(config.revision),
            supported_interfaces=[
                pb.AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version=VERSION),
                pb.AgentInterface(url=url, protocol_binding="HTTP+JSON", protocol_version=VERSION),
            ],
            capabilities=pb.AgentCapabilities(streaming=True, push_notifications=True),
            default_input_modes=INPUT_MODES,
            default_output_modes=OUTPUT_MODES,
        )
        card.capabilities.extended_agent_card = self._guarded and bool(list(_tool_skills(config.tools)))
        card.capabilities.extensions.add(
            uri=TOOL_CALLS_EXTENSION,
            description="A task that waits says in data which tool calls need results or approvals, and takes them so.",
        )
        if self._addresses.grpc_url:
            card.supported_interfaces.add(
                url=self._addresses.grpc_url, protocol_binding="GRPC", protocol_version=VERSION, tenant=config.id
            )
        if self._guarded:
            scheme = pb.HTTPAuthSecurityScheme(scheme="Bearer", description="An API key, or a token of the issuer.")
            card.security_schemes[_BEARER].http_auth_security_scheme.CopyFrom(scheme)
            card.security_requirements.add().schemes[_BEARER].SetInParent()
        return card


def card_json(card: pb.AgentCard) -> tuple[bytes, str]:
    """Returns a card as JSON, and its entity tag."""
    body = MessageToJson(card, indent=None).encode()
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _main_skill(config: config_pb.AgentConfig) -> pb.AgentSkill:
    name = config.display_name or config.id
    description = config.labels.get(DESCRIPTION_LABEL) or f"Answers as {name}."
    return pb.AgentSkill(id="chat", name=name, description=description, tags=["chat"])


def _labelled_skills(config: config_pb.AgentConfig) -> Iterator[pb.AgentSkill]:
    for key, text in sorted(config.labels.items()):
        if key.startswith(SKILL_LABEL) and (name := key.removeprefix(SKILL_LABEL)):
            yield pb.AgentSkill(id=name, name=name.replace("-", " "), description=text or name, tags=["label"])


def _tool_skills(tools: Iterable[config_pb.AgentTool]) -> Iterator[pb.AgentSkill]:
    seen: set[str] = set()
    for tool in tools:
        for skill in _skills_of(tool):
            if skill.id not in seen:
                seen.add(skill.id)
                yield skill


def _skills_of(tool: config_pb.AgentTool) -> Iterator[pb.AgentSkill]:
    kind = tool.WhichOneof("kind") or ""
    match kind:
        case "client":
            yield _skill(tool.client.name, tool.client.description, kind)
        case "agent":
            yield _skill(tool.agent.name or tool.agent.agent_id, tool.agent.description, kind)
        case "":
            return
        case _:
            server = getattr(tool, kind)
            source = server.tool_server or server.operator_tool_server
            for name in server.allow or (source,):
                yield _skill(name, f"Uses {name} of {source}." if server.allow else f"Uses tools of {source}.", kind)


def _skill(name: str, description: str, kind: str) -> pb.AgentSkill:
    return pb.AgentSkill(id=f"tool-{name}", name=name, description=description or f"Uses {name}.", tags=["tool", kind])
