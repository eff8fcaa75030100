"""The field rules at their edges."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from config_svc.model import rules
from config_svc.model.agent import AgentSpec, ModelConfig, ModelFallback, SessionPolicy, new_agent_id
from config_svc.model.template import version_order
from contract.fields import is_resource_id
from servicekit.errors import InvalidArgument, Violations

MODEL = ModelConfig("p", "m")
DAY = timedelta(days=1)


def fields_of(check: Callable[[Violations], Any]) -> list[str]:
    found = Violations()
    check(found)
    try:
        found.check()
    except InvalidArgument as error:
        return [violation.field for violation in error.violations]
    return []


def broken(**changes: Any) -> list[str]:
    return fields_of(lambda found: AgentSpec(**{"model": MODEL, **changes}).check(found, "a"))


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, []),
        ({"display_name": "x" * 200}, []),
        ({"display_name": "x" * 201}, ["a.display_name"]),
        ({"instructions": "ü" * 32_768}, []),
        ({"instructions": "ü" * 32_768 + "x"}, ["a.instructions"]),
        ({"parameters": {"a": "x" * (65_536 - 8)}}, []),
        ({"parameters": {"a": "x" * (65_536 - 7)}}, ["a.parameters"]),
        ({"parameters": {"a": [{"b": float("nan")}]}}, ["a.parameters"]),
        ({"parameters": {"a": [{"b\0": 1}]}}, ["a.parameters"]),
        ({"parameters": {"a": [{"b": "\0"}]}}, ["a.parameters"]),
        ({"parameters": {"a": "\\u0000"}}, []),
        ({"model": ModelConfig()}, ["a.model.provider", "a.model.name"]),
        ({"model": ModelConfig("x" * 63, "x" * 200, 0, 1, 1, ("a",) * 4, 0, -2, 2)}, []),
        ({"model": ModelConfig("x" * 64, "x" * 201)}, ["a.model.provider", "a.model.name"]),
        ({"model": ModelConfig("p", "m", temperature=2)}, []),
        ({"model": ModelConfig("p", "m", temperature=2.0001)}, ["a.model.temperature"]),
        ({"model": ModelConfig("p", "m", temperature=float("nan"))}, ["a.model.temperature"]),
        ({"model": ModelConfig("p", "m", top_p=5e-324)}, []),
        ({"model": ModelConfig("p", "m", top_p=0)}, ["a.model.top_p"]),
        ({"model": ModelConfig("p", "m", stop=("a",) * 5)}, ["a.model.stop"]),
        ({"session": SessionPolicy(timedelta(seconds=1), timedelta(seconds=1))}, []),
        ({"session": SessionPolicy(30 * DAY, 90 * DAY)}, []),
        ({"session": SessionPolicy(30 * DAY)}, []),
        ({"session": SessionPolicy(None, timedelta(minutes=30))}, []),
        ({"session": SessionPolicy(None, timedelta(minutes=29))}, ["a.session.max_lifetime"]),
        ({"session": SessionPolicy(2 * DAY, DAY)}, ["a.session.max_lifetime"]),
        ({"session": SessionPolicy(timedelta(0))}, ["a.session.idle_ttl"]),
        ({"session": SessionPolicy(31 * DAY, 91 * DAY)}, ["a.session.idle_ttl", "a.session.max_lifetime"]),
        ({"session": SessionPolicy(timedelta.min, timedelta.max)}, ["a.session.idle_ttl", "a.session.max_lifetime"]),
        ({"labels": {f"l{n}": "" for n in range(64)}}, []),
        ({"labels": {f"l{n}": "" for n in range(65)}}, ["a.labels"]),
        ({"labels": {"a": "x" * 257}}, ["a.labels.a"]),
        ({"labels": {"": ""}}, ["a.labels"]),
    ],
)
def test_what_breaks_a_rule(changes: dict[str, Any], fields: list[str]) -> None:
    assert broken(**changes) == fields


@pytest.mark.parametrize("text", ["a", "a-b", "a1", "a" * 63, "a--b"])
def test_ids(text: str) -> None:
    assert is_resource_id(text)


@pytest.mark.parametrize("text", ["", "A", "1a", "-a", "a-", "a_b", "a.b", "a" * 64, "a\n", "ä", "a b"])
def test_what_is_no_id(text: str) -> None:
    assert not is_resource_id(text)


@pytest.mark.parametrize("text", ["a", "a.b/c_d-e", "a1"])
def test_label_keys(text: str) -> None:
    assert rules.is_label_key(text)


@pytest.mark.parametrize("text", ["", "A", "a.", "a b", "/a", "a\n"])
def test_what_is_no_label_key(text: str) -> None:
    assert not rules.is_label_key(text)


@pytest.mark.parametrize(
    ("version", "order"),
    [
        ("1.2.3", (1, 2, 3)),
        ("0.0.0", (0, 0, 0)),
        ("999999999.0.10", (999999999, 0, 10)),
        ("1.2", None),
        ("01.2.3", None),
        ("1.2.3-rc1", None),
        ("1.2.3\n", None),
        ("1.2.1000000000", None),
        ("", None),
    ],
)
def test_versions(version: str, order: tuple[int, int, int] | None) -> None:
    assert version_order(version) == order


@pytest.mark.parametrize(
    "text", ["", "x", "{12345678-1234-1234-1234-123456789012}", "12345678123412341234123456789012"]
)
def test_what_is_no_uuid(text: str) -> None:
    assert not rules.is_uuid(text)


def test_made_ids_are_ids() -> None:
    assert all(is_resource_id(new_agent_id()) for _ in range(100))


@pytest.mark.parametrize(
    ("fallbacks", "fields"),
    [
        ((ModelFallback("q", "m"), ModelFallback("p", "n", ("content_filter", "context_length"))), []),
        (
            (ModelFallback("x" * 64, "x" * 201), ModelFallback()),
            ["[0].provider", "[0].name", "[1].provider", "[1].name"],
        ),
        (
            (ModelFallback("q", "m", ("rain", "context_length", "context_length")),),
            ["[0].also_on[0]", "[0].also_on[2]"],
        ),
        ((ModelFallback("p", "m"), ModelFallback("q", "m"), ModelFallback("q", "m")), ["[0]", "[2]"]),
        ((ModelFallback("q", "m", temperature=1, top_p=0.5, max_output_tokens=9, stop=("a",), seed=-1),), []),
        (
            (ModelFallback("q", "m", temperature=2.1, top_p=0, max_output_tokens=0, stop=("",), presence_penalty=3),),
            ["[0].temperature", "[0].top_p", "[0].max_output_tokens", "[0].stop[0]", "[0].presence_penalty"],
        ),
        (tuple(ModelFallback("q", str(n)) for n in range(5)), [""]),
    ],
)
def test_fallbacks(fallbacks: tuple[ModelFallback, ...], fields: list[str]) -> None:
    model = ModelConfig("p", "m", fallbacks=fallbacks)
    assert broken(model=model) == [f"a.model.fallbacks{field}" for field in fields]
