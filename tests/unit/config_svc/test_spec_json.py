"""The JSON form of an agent config's content: what is stored, audited and compared."""

from dataclasses import replace
from datetime import timedelta

from config_svc.model.agent import (
    AgentLimits,
    AgentSpec,
    MemoryPolicy,
    ModelConfig,
    ModelFallback,
    RequestPolicy,
    SessionPolicy,
)
from config_svc.model.spec_json import decode_spec, encode_spec, fingerprint, with_template

FULL = AgentSpec(
    display_name="Süpport",
    parameters={"n": [1, 1.5, True, None, 1e300], "1": {}},
    instructions="You answer.",
    model=ModelConfig("p", "m", 0.0, 1.0, 1, ("a", "b"), -(2**63), -2.0, 2.0),
    memory=MemoryPolicy(0),
    session=SessionPolicy(timedelta(seconds=1, microseconds=5), timedelta(days=90)),
    limits=AgentLimits(1, timedelta(hours=1)),
    labels={"a": ""},
    metadata_keys=("k",),
)
STORED = {
    "display_name": "Süpport",
    "parameters": {"n": [1, 1.5, True, None, 1e300], "1": {}},
    "instructions": "You answer.",
    "model": {
        "provider": "p",
        "name": "m",
        "temperature": 0.0,
        "top_p": 1.0,
        "max_output_tokens": 1,
        "stop": ["a", "b"],
        "seed": "-9223372036854775808",
        "presence_penalty": -2.0,
        "frequency_penalty": 2.0,
    },
    "memory": {"max_messages": 0},
    "session": {"idle_ttl": 1000005, "max_lifetime": 7776000000000},
    "limits": {"max_concurrent_turns": 1, "turn_timeout": 3600000000},
    "labels": {"a": ""},
    "metadata_keys": ["k"],
}


def test_the_json_form_is_what_earlier_releases_stored() -> None:
    assert encode_spec(FULL) == STORED
    assert decode_spec(STORED) == FULL


def test_only_what_is_set_stands_in_it_and_unknown_keys_are_ignored() -> None:
    assert encode_spec(AgentSpec()) == {}
    assert decode_spec({"color": "red", "model": {"provider": "p", "color": "red"}}) == AgentSpec(
        model=ModelConfig("p")
    )


def test_a_request_id_taken_by_an_earlier_release_still_fits_its_request() -> None:
    taken = "989b89c3d518f11f6ff41068393606ed5a8380cb8b27589d8a38612d2a19e055"
    assert fingerprint("a", encode_spec(FULL), "why") == taken
    assert fingerprint("a", encode_spec(FULL), "because") != taken


def test_naming_the_template_is_all_that_a_create_adds() -> None:
    for asked in (FULL, AgentSpec(), replace(FULL, template_id="other")):
        content = replace(asked, template_id="assistant", template_version="1.0.0")
        assert with_template(encode_spec(asked), content) == encode_spec(content)


def test_fallbacks_stand_in_it_and_what_an_earlier_release_stored_has_none() -> None:
    fallbacks = (ModelFallback("q", "n", ("content_filter",)), ModelFallback("r", "n"))
    stored = {
        "model": {
            "provider": "p",
            "name": "m",
            "fallbacks": [
                {"provider": "q", "name": "n", "also_on": ["content_filter"]},
                {"provider": "r", "name": "n"},
            ],
        }
    }
    spec = AgentSpec(model=ModelConfig("p", "m", fallbacks=fallbacks))
    assert encode_spec(spec) == stored
    assert decode_spec(stored) == spec
    assert decode_spec({"model": {"provider": "p", "name": "m"}}).model.fallbacks == ()


def test_an_empty_list_of_overridable_fields_is_a_value() -> None:
    spec = AgentSpec(model=ModelConfig(extra={"x": [1]}), requests=RequestPolicy(False, "append", ()))
    stored = {"model": {"extra": {"x": [1]}}, "requests": {"store": False, "history": "append", "overridable": []}}
    assert encode_spec(spec) == stored
    assert decode_spec(stored) == spec


def test_what_a_fallback_samples_with_is_stored_with_it() -> None:
    own = ModelFallback("q", "n", temperature=0.0, stop=("a",), seed=2**60)
    spec = AgentSpec(model=ModelConfig("p", "m", fallbacks=(own,)))
    stored = encode_spec(spec)
    assert stored["model"]["fallbacks"] == [  # type: ignore[index, call-overload]
        {"provider": "q", "name": "n", "temperature": 0.0, "stop": ["a"], "seed": str(2**60)}
    ]
    assert decode_spec(stored).model.fallbacks == (own,)
