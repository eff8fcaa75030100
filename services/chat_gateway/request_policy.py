"""Defaults of a request for a turn, and fields that it may not set. The request takes precedence over its API key, and
that over the agent config, except for fields that the agent config does not let requests override.
"""

import json
from collections.abc import Iterator
from dataclasses import replace

from access.caller import NO_REQUESTS, Caller
from chat_gateway.model.agent_config import NO_POLICY, AgentConfig
from chat_gateway.model.provider_errors import FieldNotOverridable
from chat_gateway.model.rules import DEFAULT_BOUNDS, RequestBounds, check_session_bounds, is_undecided
from chat_gateway.model.turn import TurnRequest
from contract.enums import HistoryPolicy
from servicekit.errors import InvalidArgument, Violation

_ALIASES = {"max_completion_tokens": frozenset({"max_completion_tokens", "max_tokens", "max_output_tokens"})}


def resolved(request: TurnRequest, caller: Caller, config: AgentConfig) -> TurnRequest:
    """Returns the request with defaults applied. Raises `FieldNotOverridable` with all fields that it may not set."""
    policy, of_key = config.requests, caller.requests
    if policy is NO_POLICY and of_key is NO_REQUESTS:
        return request
    if policy.overridable is not None:
        beyond = [name for name in _overridden(request, config) if not _may_set(policy.overridable, name)]
        if beyond:
            raise FieldNotOverridable(config.id, beyond)
    stateless, history = request.stateless, request.history
    if is_undecided(replace(request, stateless=False)):
        of_key_store = of_key.store if _may_set(policy.overridable, "store") else None
        stateless = not (policy.store if of_key_store is None else of_key_store)
    if history is None:
        of_key_history = of_key.history if _may_set(policy.overridable, "history") else None
        history = of_key_history or policy.history
    return replace(request, stateless=stateless, history=history)


def resolved_request(
    request: TurnRequest, caller: Caller, config: AgentConfig, bounds: RequestBounds = DEFAULT_BOUNDS
) -> TurnRequest:
    """Returns the checked and resolved request. Raises as `resolved` and `check_session_bounds`."""
    undecided = is_undecided(request)
    request = resolved(request, caller, config)
    if undecided and not request.stateless:
        check_session_bounds(request, bounds)
    if request.choices > 1 and config.tools:
        raise InvalidArgument([Violation("choices", "must be 1 for an agent that calls tools")])
    return request


def _may_set(overridable: frozenset[str] | None, name: str) -> bool:
    return overridable is None or not overridable.isdisjoint(_ALIASES.get(name, (name,)))


def _overridden(request: TurnRequest, config: AgentConfig) -> Iterator[str]:
    """Yields the fields whose values differ from the agent config's, by their names in chat completions."""
    if request.store is not None and request.store != config.requests.store:
        yield "store"
    if request.history is not None and request.history != (config.requests.history or HistoryPolicy.MATCH):
        yield "history"
    said, own = request.sampling, config.sampling
    pairs = {
        "temperature": (said.temperature, own.temperature),
        "top_p": (said.top_p, own.top_p),
        "max_completion_tokens": (said.max_output_tokens, own.max_output_tokens),
        "stop": (said.stop or None, own.stop),
        "seed": (said.seed, own.seed),
        "presence_penalty": (said.presence_penalty, own.presence_penalty),
        "frequency_penalty": (said.frequency_penalty, own.frequency_penalty),
    }
    yield from (name for name, (value, kept) in pairs.items() if value is not None and value != kept)
    for name, given in (
        ("instructions", request.instructions),
        ("tools", request.tools),
        ("tool_choice", request.tool_choice),
        ("response_format", request.response_format is not None),
        ("n", request.choices > 1),
    ):
        if given:
            yield name
    for name, text in request.extra.items():
        if name not in config.extra or json.loads(text) != json.loads(config.extra[name]):
            yield name
