"""The model of an agent config: JSON to and from protobuf."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from chat_gateway.http_edge.admin.agents.fields import given_fields, set_fields
from chat_gateway.http_edge.wire.bodies import check_free_form
from contract.enums import FallbackTrigger
from contract.json_numbers import parsed
from contract.wire import FALLBACK_TRIGGER_NUMBERS, FALLBACK_TRIGGERS
from parley.config.v1 import agent_config_pb2 as pb

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class FallbackJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Another model, asked where the ones before it can't answer: unavailable, rate limited, or too slow.

    `also_on` names what else it is tried for.
    """

    provider: str
    name: str
    also_on: list[FallbackTrigger] = []
    temperature: float | UnsetType | None = UNSET
    """This and the fields below are sent in place of the agent's own, not in place of what a request says."""
    top_p: float | UnsetType | None = UNSET
    max_output_tokens: Int32 | UnsetType | None = UNSET
    stop: list[str] | UnsetType | None = UNSET
    seed: Int64 | UnsetType | None = UNSET
    presence_penalty: float | UnsetType | None = UNSET
    frequency_penalty: float | UnsetType | None = UNSET


class ModelJson(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which model answers, and how it samples. Omitted fields are not sent to the provider."""

    provider: str = ""
    name: str = ""
    temperature: float | UnsetType | None = UNSET
    top_p: float | UnsetType | None = UNSET
    max_output_tokens: Int32 | UnsetType | None = UNSET
    stop: list[str] | UnsetType | None = UNSET
    seed: Int64 | UnsetType | None = UNSET
    presence_penalty: float | UnsetType | None = UNSET
    frequency_penalty: float | UnsetType | None = UNSET
    fallbacks: list[FallbackJson] | UnsetType | None = UNSET
    extra: dict[str, Any] | UnsetType | None = UNSET
    """Request fields that are the provider's to understand, such as `reasoning_effort`."""


def model_json(model: pb.ModelConfig) -> ModelJson:
    """Returns the model of an agent config as clients see it."""
    fields = _sampling_json(model)
    if model.fallbacks:
        fields["fallbacks"] = [
            FallbackJson(
                provider=one.provider,
                name=one.name,
                also_on=[FALLBACK_TRIGGERS[number] for number in one.also_on if number in FALLBACK_TRIGGERS],
                **_sampling_json(one),
            )
            for one in model.fallbacks
        ]
    if model.extra:
        fields["extra"] = {name: parsed(text) for name, text in sorted(model.extra.items())}
    return ModelJson(provider=model.provider, name=model.name, **fields)


def _sampling_json(model: pb.ModelConfig | pb.ModelFallback) -> dict[str, Any]:
    optional = ("temperature", "top_p", "max_output_tokens", "seed", "presence_penalty", "frequency_penalty")
    fields = set_fields(model, optional)
    return {**fields, "stop": list(model.stop)} if model.stop else fields


def to_model_config(model: ModelJson) -> pb.ModelConfig:
    """Returns the model that a client wrote. Raises `MalformedBody`."""
    fields = given_fields(model)
    fallbacks: list[FallbackJson] = fields.pop("fallbacks", [])
    extra = fields.pop("extra", {})
    check_free_form(extra, "model.extra")
    return pb.ModelConfig(
        **fields,
        extra={name: msgspec.json.encode(value).decode() for name, value in extra.items()},
        fallbacks=[
            pb.ModelFallback(
                **{
                    **given_fields(one),
                    "also_on": [FALLBACK_TRIGGER_NUMBERS[trigger] for trigger in one.also_on],
                }
            )
            for one in fallbacks
        ],
    )
