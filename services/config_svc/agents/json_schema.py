"""JSON Schema (2020-12) of template parameters, at a bounded cost and without remote references.

Patterns are RE2's, which match in linear time (no look-around, no back-references). References stay within the schema.
A validation that takes more than STEPS steps ends with a violation that says so. Both checks may take a few 100 ms at
the bounds: run them in a thread.
"""

import contextvars
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import re2  # type: ignore[import-untyped, unused-ignore]
from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from config_svc.model.rules import Json, canonical
from servicekit.errors import Violation

DIALECT = "https://json-schema.org/draft/2020-12/schema"
STEPS = 20_000
MAX_VIOLATIONS = 100

_PATTERN_OPTIONS = re2.Options()
_PATTERN_OPTIONS.log_errors = False
_PATTERN_OPTIONS.max_mem = 1 << 20

_steps: contextvars.ContextVar[Iterator[int]] = contextvars.ContextVar("steps")


class _TooCostlyError(Exception):
    """The validation reached its maximum of steps."""


def schema_violations(schema: dict[str, Json], path: str) -> list[Violation]:
    """Returns the violations of a template's `schema`."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return [Violation(_path(path, error.absolute_path), _short(error.message))]
    except RecursionError:
        return [Violation(path, "is nested too deeply")]
    return list(_unfit(schema, path))


def parameter_violations(schema: dict[str, Json], parameters: dict[str, Json], path: str) -> list[Violation]:
    """Returns violations of a valid schema by `parameters`; at most MAX_VIOLATIONS."""
    token = _steps.set(iter(range(STEPS)))
    try:
        errors = _Validator(schema, registry=Registry()).iter_errors(parameters)
        return [
            Violation(_path(path, error.absolute_path), _short(error.message))
            for error in itertools.islice(errors, MAX_VIOLATIONS)
        ]
    except (_TooCostlyError, RecursionError):
        return [Violation(path, "takes too long to check against the template's schema")]
    except Unresolvable:
        return [Violation(path, "cannot be checked: the template's schema has a reference to nowhere")]
    finally:
        _steps.reset(token)


def _unfit(schema: dict[str, Json], path: str) -> Iterator[Violation]:
    """Yields what the dialect allows but we don't: external references, and patterns that RE2 does not support."""
    if schema.get("$schema", DIALECT) not in (DIALECT, f"{DIALECT}#"):
        yield Violation(f"{path}.$schema", f"must be {DIALECT}")
    resolver = Registry().resolver_with_root(DRAFT202012.create_resource(schema))
    found = list(_keywords(schema))
    for keyword, value in found:
        if keyword in ("$ref", "$dynamicRef") and isinstance(value, str):
            if not value.startswith("#"):
                yield Violation(path, f"{keyword} {_short(value)!r} must refer to a place within this schema")
            elif not _resolves(resolver, value):
                yield Violation(path, f"{keyword} {_short(value)!r} refers to nowhere")
        elif keyword == "$id":
            yield Violation(path, "must not hold $id")
        elif keyword == "pattern" and isinstance(value, str) and not _is_pattern(value):
            yield Violation(path, f"pattern {_short(value)!r} is not an RE2 pattern")
        elif keyword == "patternProperties" and isinstance(value, dict):
            bad = [pattern for pattern in value if not _is_pattern(pattern)]
            yield from (Violation(path, f"pattern {_short(pattern)!r} is not an RE2 pattern") for pattern in bad)
    names = {keyword for keyword, _ in found}
    if "patternProperties" in names and "unevaluatedProperties" in names:
        yield Violation(path, "must not hold both patternProperties and unevaluatedProperties")


def _resolves(resolver: Any, reference: str) -> bool:
    try:
        resolver.lookup(reference)
    except Unresolvable:
        return False
    return True


def _is_pattern(pattern: str) -> bool:
    try:
        _compiled(pattern)
    except re2.error:
        return False
    return True


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    return re2.compile(pattern, _PATTERN_OPTIONS)


def _keywords(value: Json) -> Iterator[tuple[str, Json]]:
    """Yields every entry of every object in the schema; entries of plain data count too, to err on the safe side."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one.items()
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _path(path: str, within: Any) -> str:
    for step in within:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return path[:400]


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:299]}…"


def _spend(steps: int = 1) -> None:
    budget = _steps.get()
    if next(itertools.islice(budget, steps - 1, None), None) is None:
        raise _TooCostlyError


Keyword = Callable[[Any, Any, Any, Any], Iterator[ValidationError] | None]


def _counted(keyword: Keyword) -> Keyword:
    def count(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError] | None:
        _spend()
        return keyword(validator, value, instance, schema)

    return count


def _required(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "object"):
        for name in value:
            if name not in instance:
                yield ValidationError("is required", path=[name])


def _additional(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    patterns = list(schema.get("patternProperties", ()))
    for name in instance:
        if name in schema.get("properties", ()) or any(_matches(pattern, name) for pattern in patterns):
            continue
        if value is False:
            yield ValidationError("is not a parameter of the template", path=[name])
        else:
            yield from validator.descend(instance[name], value, path=name)


def _pattern(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not _matches(value, instance):
        yield ValidationError(f"must match the pattern {value!r}")


def _pattern_properties(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "object"):
        for pattern, subschema in value.items():
            for name, one in instance.items():
                if _matches(pattern, name):
                    yield from validator.descend(one, subschema, path=name, schema_path=pattern)


def _unique_items(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    # Not the library's check, which compares all pairs of items.
    if value and validator.is_type(instance, "array") and len({canonical(one) for one in instance}) < len(instance):
        yield ValidationError("must not hold two equal items")


def _enum(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    _spend(len(value) + 1)
    text = canonical(instance)
    if not any(canonical(one) == text for one in value):
        yield ValidationError("must be one of the values that the template allows: " + canonical(value))


def _matches(pattern: str, text: str) -> bool:
    _spend()
    return _compiled(pattern).search(text) is not None


_OWN: dict[str, Keyword] = {
    "required": _required,
    "additionalProperties": _additional,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "uniqueItems": _unique_items,
    "enum": _enum,
}

_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {name: _counted(keyword) for name, keyword in {**Draft202012Validator.VALIDATORS, **_OWN}.items()},
)
