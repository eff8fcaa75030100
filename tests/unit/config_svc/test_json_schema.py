"""JSON Schema of template parameters: what it refuses, and that no schema makes it costly."""

import itertools
import time
from typing import Any

import pytest

from config_svc.agents.json_schema import MAX_VIOLATIONS, parameter_violations, schema_violations

OBJECT = {"type": "object"}


def broken(schema: dict[str, Any], parameters: dict[str, Any]) -> list[tuple[str, str]]:
    full = {**OBJECT, **schema}
    assert schema_violations(full, "s") == []
    return [(one.field, one.description) for one in parameter_violations(full, parameters, "p")]


@pytest.mark.parametrize(
    ("schema", "parameters", "fields"),
    [
        ({}, {"anything": [1]}, []),
        ({"required": ["a", "b"]}, {"b": 1}, ["p.a"]),
        ({"additionalProperties": False, "properties": {"a": {}}}, {"a": 1, "b": 2}, ["p.b"]),
        ({"additionalProperties": {"type": "string"}}, {"b": 2}, ["p.b"]),
        ({"additionalProperties": False, "patternProperties": {"^x": {}}}, {"x1": 1, "y": 2}, ["p.y"]),
        ({"patternProperties": {"^x": {"type": "string"}}}, {"x1": 1, "y": 2}, ["p.x1"]),
        ({"properties": {"a": {"pattern": "^b+$"}}}, {"a": "abb"}, ["p.a"]),
        ({"properties": {"a": {"pattern": "b"}}}, {"a": "abb"}, []),
        ({"properties": {"a": {"enum": [1, "x"]}}}, {"a": True}, ["p.a"]),
        ({"properties": {"a": {"enum": [1, "x"]}}}, {"a": "x"}, []),
        ({"properties": {"a": {"uniqueItems": True}}}, {"a": [1, True, {"x": 1}, {"x": 1}]}, ["p.a"]),
        ({"properties": {"a": {"uniqueItems": True}}}, {"a": [1, True, "1", {"x": 1}, {"x": 2}]}, []),
        (
            {"properties": {"a": {"items": {"properties": {"b": {"type": "integer"}}}}}},
            {"a": [{}, {"b": ""}]},
            ["p.a[1].b"],
        ),
        ({"properties": {"n": {"type": "integer", "maximum": 3}}}, {"n": 4}, ["p.n"]),
        ({"$defs": {"s": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/s"}}}, {"a": 1}, ["p.a"]),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, ["p"]),
        ({"unevaluatedProperties": False, "allOf": [{"properties": {"a": {}}}]}, {"a": 1, "b": 1}, ["p"]),
        ({"properties": {"a": False}}, {"a": 1}, ["p"]),
    ],
)
def test_where_parameters_break_a_schema(schema: dict[str, Any], parameters: dict[str, Any], fields: list[str]) -> None:
    assert [field for field, _ in broken(schema, parameters)] == fields


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": 1},
        {"type": "thing"},
        {"required": [1]},
        {"$schema": "http://json-schema.org/draft-07/schema#"},
        {"properties": {"a": {"$ref": "http://127.0.0.1:1/schema"}}},
        {"properties": {"a": {"$ref": "other.json#/a"}}},
        {"properties": {"a": {"$ref": "#/$defs/none"}}},
        {"properties": {"a": {"$dynamicRef": "http://127.0.0.1:1/#x"}}},
        {"$id": "http://127.0.0.1:1/schema"},
        {"properties": {"a": {"pattern": "("}}},
        {"properties": {"a": {"pattern": r"(a)\1"}}},
        {"patternProperties": {"(?=a)": {}}},
        {"patternProperties": {"a": {}}, "allOf": [{"unevaluatedProperties": False}]},
    ],
)
def test_what_no_template_may_have(schema: dict[str, Any]) -> None:
    assert schema_violations({**OBJECT, **schema}, "s")


def test_the_dialect_may_be_named() -> None:
    assert schema_violations({"$schema": "https://json-schema.org/draft/2020-12/schema", **OBJECT}, "s") == []


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"properties": {"a": schema}}
    return {**OBJECT, **schema}


def doubling() -> dict[str, Any]:
    names = [f"d{number}" for number in range(30)]
    defs: dict[str, Any] = {
        name: {"allOf": [{"$ref": f"#/$defs/{following}"}] * 2} for name, following in itertools.pairwise(names)
    }
    return {"$defs": {**defs, names[-1]: {}}, "$ref": "#/$defs/d0"}


COSTLY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "backtracking": ({"properties": {"a": {"pattern": "^(a|a)*(a+)+$"}}}, {"a": "a" * 60_000 + "b"}),
    "endless reference": ({"$ref": "#"}, {}),
    "endless reference on the way": ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, {}),
    "doubling": (doubling(), {}),
    "unique objects": ({"properties": {"a": {"uniqueItems": True}}}, {"a": [{"x": n} for n in range(8_000)]}),
    "large enum": (
        {"properties": {"a": {"items": {"enum": list(range(10_000))}}}},
        {"a": [f"{n}" for n in range(8_000)]},
    ),
    "many items": ({"properties": {"a": {"items": {"allOf": [{"type": "integer"}] * 50}}}}, {"a": list(range(10_000))}),
    "unevaluated": (
        {"$defs": {"x": {"anyOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}]}}, "unevaluatedProperties": False,
         "anyOf": [{"$ref": "#/$defs/x"}]},
        {"a": 1},
    ),
    "unevaluated doubling": ({**doubling(), "unevaluatedProperties": False}, {"a": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTLY)
def test_no_schema_makes_a_check_costly(name: str) -> None:
    schema, parameters = COSTLY[name]
    begun = time.process_time()
    broken(schema, parameters)
    assert time.process_time() - begun < 5


def test_a_schema_may_not_be_nested_endlessly() -> None:
    schema_violations(deep(33), "s")
    assert schema_violations(deep(400), "s")


def test_violations_are_counted_out() -> None:
    many = broken({"additionalProperties": False}, {f"x{number}": 1 for number in range(1000)})
    assert len(many) == MAX_VIOLATIONS


def test_long_values_are_cut_in_messages() -> None:
    [(_, description)] = broken({"properties": {"a": {"type": "integer"}}}, {"a": "x" * 10_000})
    assert len(description) <= 300
