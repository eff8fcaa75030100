"""Whether a text is an OpenAPI 3 document whose operations can be tools, at a bounded cost: run it on a thread."""

import json
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import unquote

from config_svc.model.tool_server import MAX_OPENAPI_BYTES

MAX_DEPTH = 64
MAX_VALUES = 100_000
MAX_OPERATIONS = 256
MAX_PROBLEMS = 20

_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_MAX_ID = 128


def openapi_problems(text: str) -> list[str]:
    """Returns what keeps a text from being such a document, at most MAX_PROBLEMS; empty when it is one."""
    if len(text.encode()) > MAX_OPENAPI_BYTES:
        return [f"must have at most {MAX_OPENAPI_BYTES} bytes"]
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        return [f"must not nest deeper than {MAX_DEPTH} levels"]
    except ValueError as error:
        return [f"must be JSON (not YAML): {error}"[:200]]
    if not isinstance(document, dict):
        return ["must be a JSON object: an OpenAPI 3 document"]
    if too_large := _too_large(document):
        return [too_large]
    found = []
    for problem in _problems(document):
        found.append(problem)
        if len(found) == MAX_PROBLEMS:
            break
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _too_large(document: dict[str, Any]) -> str:
    level: list[Any] = [document]
    left = MAX_VALUES
    for _ in range(MAX_DEPTH):
        level = [child for item in level for child in _children(item)]
        left -= len(level)
        if not level:
            return ""
        if left < 0:
            return f"must hold at most {MAX_VALUES} values"
    return f"must not nest deeper than {MAX_DEPTH} levels"


def _children(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []


def _problems(document: dict[str, Any]) -> Iterator[str]:
    version = document.get("openapi")
    if not isinstance(version, str) or not version.startswith("3."):
        yield "`openapi` must be a version of OpenAPI 3, such as 3.1.0"
    yield from _references(document)
    paths = document.get("paths")
    if not isinstance(paths, dict):
        yield "`paths` must be an object"
        return
    ids: list[str] = []
    for path, item in paths.items():
        if not isinstance(item, dict):
            yield f"`paths` {path[:80]!r} must be an object"
            continue
        yield from _operations(path[:80], item, ids)
    if not ids:
        yield "at least one operation must have an operationId: each one that has is a tool"
    if len(ids) > MAX_OPERATIONS:
        yield f"must have at most {MAX_OPERATIONS} operations with an operationId"


def _operations(path: str, item: dict[str, Any], ids: list[str]) -> Iterator[str]:
    for method in _METHODS & item.keys():
        operation = item[method]
        if not isinstance(operation, dict):
            yield f"`paths` {path!r} {method} must be an object"
            continue
        name = operation.get("operationId")
        if name is None:
            continue
        if not isinstance(name, str) or not 1 <= len(name) <= _MAX_ID:
            yield f"operationId of {method} {path!r} must be text of 1 to {_MAX_ID} characters"
            continue
        if name in ids[:MAX_OPERATIONS]:
            yield f"operationId {name!r} of {method} {path!r} is a duplicate"
        ids.append(name)


def _references(document: dict[str, Any]) -> Iterator[str]:
    waiting: list[Any] = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict) and isinstance(reference := item.get("$ref"), str):
            if not reference.startswith("#"):
                yield f"$ref {reference[:200]!r} must refer to a place within this document"
            elif not _resolves(document, reference):
                yield f"$ref {reference[:200]!r} refers to nowhere"
        waiting += _children(item)


def _resolves(document: Any, reference: str) -> bool:
    """Follows a JSON pointer (RFC 6901) in a fragment; anchors are taken for good, what reads them decides."""
    if not reference.startswith("#/"):
        return True
    for step in reference[2:].split("/"):
        name = _unescaped(step)
        if isinstance(document, dict) and name in document:
            document = document[name]
        elif isinstance(document, list) and name.isdecimal() and len(name) < 7 and int(name) < len(document):
            document = document[int(name)]
        else:
            return False
    return True


def _unescaped(step: str) -> str:
    return unquote(step).replace("~1", "/").replace("~0", "~")
