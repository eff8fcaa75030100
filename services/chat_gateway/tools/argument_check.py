"""Validates the model's arguments against a tool's JSON Schema, at a bounded cost, since both are untrusted."""

import contextvars
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MAX_STEPS = 10_000
MAX_PROBLEMS = 10

_NOT_CHECKED = ("pattern", "patternProperties", "uniqueItems", "format", "$dynamicRef", "unevaluatedProperties")
"""What takes as long as a schema's author likes, as do additional properties beside patterns. The service checks them
itself."""

_steps: contextvars.ContextVar[Iterator[int]] = contextvars.ContextVar("argument_check_steps")


class _TooCostlyError(Exception):
    """The check took all the steps that it may."""


def problems(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with the arguments, in words for the model; empty also where that takes too long to find.

    Patterns and formats are not checked, and neither is a schema that is none itself.
    """
    token = _steps.set(iter(range(MAX_STEPS)))
    try:
        found = itertools.islice(_validator()(schema).iter_errors(arguments), MAX_PROBLEMS)
        return [f"{_path(error.absolute_path)}{error.message[:300]}" for error in found]
    except Exception:  # the library raises what it likes for schemas that are none
        return []
    finally:
        _steps.reset(token)


@functools.cache
def _validator() -> Callable[[Mapping[str, Any]], Any]:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend
    from referencing import Registry

    checks = Draft202012Validator.VALIDATORS.items()
    counted = {name: _unchecked if name in _NOT_CHECKED else _counted(name, check) for name, check in checks}
    made = extend(Draft202012Validator, counted)  # type: ignore[no-untyped-call]
    return lambda schema: made(schema, registry=Registry())


def _unchecked(validator: Any, value: Any, instance: Any, schema: Any) -> None:
    """Has nothing to complain about."""


def _counted(name: str, check: Any) -> Any:
    def count(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        if next(_steps.get(), None) is None:
            raise _TooCostlyError
        if name == "additionalProperties" and "patternProperties" in schema:
            return None
        return check(validator, value, instance, schema)

    return count


def _path(path: Any) -> str:
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return f"{steps.lstrip('.')[:200]}: " if steps else ""
