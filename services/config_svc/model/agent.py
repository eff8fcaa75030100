"""The agent config: what an agent is, snapshot by snapshot."""

import hashlib
import secrets
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import ClassVar

from config_svc.model import rules
from config_svc.model.rules import KIB, Json
from config_svc.model.tools import DEFAULT_POLICY, AgentTool, ToolPolicy, check_tools, tools_bytes
from contract.chat_fields import FIELD_NAME, FIELD_NAME_RULE, MAX_EXTRA_FIELDS, OWN_FIELDS
from contract.enums import FallbackTrigger, HistoryPolicy
from contract.fields import check_resource_id
from servicekit.errors import Violations

DEFAULT_TEMPLATE = "assistant"
DEFAULT_IDLE_TTL = timedelta(minutes=30)

MAX_FALLBACKS = 4
MAX_OVERRIDABLE = 128
MAX_EXTRA_BYTES = 16 * KIB

_SECOND = timedelta(seconds=1)
_ID_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True)
class ModelFallback:
    """Another model to ask where the ones before it can't answer; `also_on` holds names of `FallbackTrigger`."""

    provider: str = ""
    name: str = ""
    also_on: tuple[str, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        rules.check_text(found, f"{path}.provider", self.provider, maximum=63, required=True)
        rules.check_text(found, f"{path}.name", self.name, maximum=200, required=True)
        for index, trigger in enumerate(self.also_on[: len(FallbackTrigger) + 1]):
            if trigger not in set(FallbackTrigger):
                found.add(f"{path}.also_on[{index}]", f"must be one of {', '.join(FallbackTrigger)}")
            elif trigger in self.also_on[:index]:
                found.add(f"{path}.also_on[{index}]", "is a duplicate")
        _check_sampling(found, path, self)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which model answers, and how it samples. None is not sent to the provider."""

    provider: str = ""
    name: str = ""
    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    fallbacks: tuple[ModelFallback, ...] = ()
    extra: dict[str, Json] = field(default_factory=dict)
    """Request fields that are the provider's to understand."""

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        rules.check_text(found, f"{path}.provider", self.provider, maximum=63, required=True)
        rules.check_text(found, f"{path}.name", self.name, maximum=200, required=True)
        _check_sampling(found, path, self)
        self._check_fallbacks(found, path)
        if self.extra:
            self._check_extra(found, f"{path}.extra")

    def _check_extra(self, found: Violations, path: str) -> None:
        rules.check_json(found, path, self.extra, maximum=MAX_EXTRA_BYTES)
        if len(self.extra) > MAX_EXTRA_FIELDS:
            found.add(path, f"must have at most {MAX_EXTRA_FIELDS} entries")
        for name in sorted(self.extra)[: MAX_EXTRA_FIELDS + 1]:
            if name in OWN_FIELDS:
                found.add(f"{path}.{name}", "must be no field that Parley reads itself")
            elif not FIELD_NAME.fullmatch(name):
                found.add(path, f"key {name[:80]!r} {FIELD_NAME_RULE}")

    def _check_fallbacks(self, found: Violations, path: str) -> None:
        if len(self.fallbacks) > MAX_FALLBACKS:
            found.add(f"{path}.fallbacks", f"must have at most {MAX_FALLBACKS} entries")
        models = [(self.provider, self.name)]
        for index, fallback in enumerate(self.fallbacks[:MAX_FALLBACKS]):
            fallback.check(found, f"{path}.fallbacks[{index}]")
            model = (fallback.provider, fallback.name)
            if all(model) and model in models:
                found.add(f"{path}.fallbacks[{index}]", "is a duplicate: another try of one model is its provider's")
            models.append(model)


SAMPLING_FIELDS = (
    "temperature", "top_p", "max_output_tokens", "stop", "seed", "presence_penalty", "frequency_penalty",
)  # fmt: skip
"""The fields of a model, and of a fallback, that say how it samples."""


def _check_sampling(found: Violations, path: str, model: ModelConfig | ModelFallback) -> None:
    rules.check_number(found, f"{path}.temperature", model.temperature, minimum=0, maximum=2)
    rules.check_number(found, f"{path}.top_p", model.top_p, minimum=0, maximum=1, exclusive=True)
    rules.check_number(found, f"{path}.max_output_tokens", model.max_output_tokens, minimum=1)
    if len(model.stop) > 4:
        found.add(f"{path}.stop", "must have at most 4 entries")
    for index, stop in enumerate(model.stop[:4]):
        rules.check_text(found, f"{path}.stop[{index}]", stop, maximum=256, required=True)
    rules.check_number(found, f"{path}.presence_penalty", model.presence_penalty, minimum=-2, maximum=2)
    rules.check_number(found, f"{path}.frequency_penalty", model.frequency_penalty, minimum=-2, maximum=2)


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """How much of the history is sent to the model."""

    max_messages: int | None = None
    max_parts: int | None = None

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        rules.check_number(found, f"{path}.max_messages", self.max_messages, minimum=0, maximum=1000)
        rules.check_number(found, f"{path}.max_parts", self.max_parts, minimum=0, maximum=100)


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How long sessions of the agent live."""

    idle_ttl: timedelta | None = None
    max_lifetime: timedelta | None = None

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        rules.check_duration(found, f"{path}.idle_ttl", self.idle_ttl, minimum=_SECOND, maximum=timedelta(days=30))
        idle = self.idle_ttl if self.idle_ttl is not None else DEFAULT_IDLE_TTL
        minimum = min(max(idle, _SECOND), timedelta(days=30))
        rules.check_duration(
            found, f"{path}.max_lifetime", self.max_lifetime, minimum=minimum, maximum=timedelta(days=90)
        )


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """Bounds on the agent's turns."""

    max_concurrent_turns: int | None = None
    turn_timeout: timedelta | None = None
    requests_per_minute: int | None = None

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        rules.check_number(found, f"{path}.max_concurrent_turns", self.max_concurrent_turns, minimum=1, maximum=100_000)
        rules.check_number(found, f"{path}.requests_per_minute", self.requests_per_minute, minimum=1, maximum=1_000_000)
        rules.check_duration(
            found, f"{path}.turn_timeout", self.turn_timeout, minimum=_SECOND, maximum=timedelta(hours=1)
        )


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """What requests for turns get where they say nothing, and what they may say; None for `overridable` is anything."""

    store: bool | None = None
    history: str | None = None
    overridable: tuple[str, ...] | None = None

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        check_history(found, f"{path}.history", self.history)
        names = self.overridable or ()
        if len(names) > MAX_OVERRIDABLE:
            found.add(f"{path}.overridable", f"must have at most {MAX_OVERRIDABLE} entries")
        for index, name in enumerate(names[:MAX_OVERRIDABLE]):
            if not FIELD_NAME.fullmatch(name):
                found.add(f"{path}.overridable[{index}]", FIELD_NAME_RULE)
            elif name in names[:index]:
                found.add(f"{path}.overridable[{index}]", "is a duplicate")


def check_history(found: Violations, path: str, history: str | None) -> None:
    """Reports an invalid history policy."""
    if history is not None and history not in set(HistoryPolicy):
        found.add(path, f"must be one of {', '.join(HistoryPolicy)}")


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """All that a caller may write of an agent config; the content of a revision."""

    display_name: str = ""
    template_id: str = ""
    template_version: str = ""
    parameters: dict[str, Json] = field(default_factory=dict)
    instructions: str = ""
    model: ModelConfig = ModelConfig()
    memory: MemoryPolicy = MemoryPolicy()
    session: SessionPolicy = SessionPolicy()
    limits: AgentLimits = AgentLimits()
    labels: dict[str, str] = field(default_factory=dict)
    metadata_keys: tuple[str, ...] = ()
    tools: tuple[AgentTool, ...] = ()
    tool_policy: ToolPolicy = DEFAULT_POLICY
    requests: RequestPolicy = RequestPolicy()

    @property
    def weight(self) -> int:
        """The approximate number of bytes that it takes in a message, rather too low than too high."""
        labels = sum(len(key) + len(value) for key, value in self.labels.items())
        labels += sum(map(len, self.metadata_keys))
        fallbacks = self.model.fallbacks
        labels += sum(64 + len(one.provider) + len(one.name) + sum(map(len, one.stop)) for one in fallbacks)
        labels += sum(map(len, self.requests.overridable or ()))
        free = sum(len(rules.canonical(one)) for one in (self.parameters, self.model.extra) if one) + tools_bytes(
            self.tools
        )
        return 512 + labels + len(self.instructions) + rules.JSON_OVERHEAD * free

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`; what template and gateways make of it is not known here."""
        rules.check_text(found, f"{path}.display_name", self.display_name, maximum=200)
        if self.template_id:
            check_resource_id(found, f"{path}.template_id", self.template_id)
        rules.check_text(found, f"{path}.template_version", self.template_version, maximum=32)
        rules.check_json(found, f"{path}.parameters", self.parameters, maximum=64 * KIB)
        rules.check_bytes(found, f"{path}.instructions", self.instructions, maximum=64 * KIB)
        self.model.check(found, f"{path}.model")
        self.memory.check(found, f"{path}.memory")
        self.session.check(found, f"{path}.session")
        self.limits.check(found, f"{path}.limits")
        rules.check_labels(found, f"{path}.labels", self.labels)
        rules.check_placeholder_names(found, f"{path}.metadata_keys", self.metadata_keys)
        check_tools(found, f"{path}.tools", self.tools, self.tool_policy, f"{path}.tool_policy")
        self.requests.check(found, f"{path}.requests")


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """One snapshot of an agent config with its state. Times are UTC."""

    project: str
    id: str
    uid: str
    spec: AgentSpec
    revision: int
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None = None
    purge_time: datetime | None = None

    ETAG_BYTES: ClassVar[int] = 9

    @property
    def etag(self) -> str:
        """Opaque token of the state: another after every write that changed something (AIP-154)."""
        state = f"{self.uid}/{self.id}/{self.revision}/{self.delete_time is not None}"
        return hashlib.blake2b(state.encode(), digest_size=self.ETAG_BYTES).hexdigest()

    def with_spec(self, spec: AgentSpec, now: datetime) -> "AgentConfig":
        """Returns the next revision, with this content."""
        return replace(self, spec=spec, revision=self.revision + 1, update_time=max(now, self.update_time))

    def deleted(self, now: datetime, retention: timedelta) -> "AgentConfig":
        """Returns it as deleted now, to be purged after `retention`."""
        return replace(self, delete_time=now, purge_time=now + retention)

    def undeleted(self, agent_id: str) -> "AgentConfig":
        """Returns it as live again, under `agent_id`."""
        return replace(self, id=agent_id, delete_time=None, purge_time=None)


@dataclass(frozen=True, slots=True)
class Revision:
    """One immutable snapshot's content, and who wrote it (AIP-162)."""

    number: int
    spec: AgentSpec
    create_time: datetime
    author: str = ""
    comment: str = ""
    changed_fields: tuple[str, ...] = ()


def new_agent_id() -> str:
    """Returns an id for an agent config that was given none; 50 bits of chance."""
    return "agent-" + "".join(secrets.choice(_ID_LETTERS) for _ in range(10))
