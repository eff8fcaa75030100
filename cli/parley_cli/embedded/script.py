"""What the scripted model answers. It is no language model: a few rules, enough to show how an agent calls tools.

A message of the user is answered by a call of one of the tools that are offered, and a result by a sentence that quotes
it. The tool is the one that the message names, else one whose name shares a word with it, else the first. Arguments are
taken from a JSON object or from `name=value` in the message, numbers that are required also from its other numbers in
their order; for what is required and still missing there is a plain value.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MODEL_NAME = "scripted-tool-caller"
NO_TOOLS = (
    f"I am {MODEL_NAME}: a script, not a language model. I show how an agent calls tools, and was offered none to call."
)

Json = dict[str, Any]

_PAIR = re.compile(r"(\w+)=(\"[^\"]*\"|[^\s,;]+)")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]*\w)")
_WORD = re.compile(r"[a-z0-9]+")
_TRUTH = {"true": True, "false": False}
_OF_TYPE: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}
_PLAIN: Json = {"integer": 1, "number": 1, "boolean": False, "array": [], "object": {}, "null": None}


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that the script calls, with its arguments as JSON."""

    name: str
    arguments: str


def reply(request: Mapping[str, Any]) -> str | Call:
    """Returns what a request for a chat completion is answered with. Raises ValueError for one without messages."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise ValueError("messages must be a list of objects, and not empty")
    last = messages[-1]
    if last.get("role") == "tool":
        return "\n".join(_results(messages))
    offered = _offered(request)
    if last.get("role") != "user" or not offered:
        return NO_TOOLS
    text = _text(last)
    function = _chosen(offered, text)
    return Call(function["name"], json.dumps(_arguments(function.get("parameters") or {}, text), ensure_ascii=False))


def _results(messages: Sequence[Json]) -> Iterator[str]:
    """Yields a sentence for each result at the end."""
    names = {call["id"]: call["function"]["name"] for one in messages for call in one.get("tool_calls") or ()}
    first = len(messages)
    while first and messages[first - 1].get("role") == "tool":
        first -= 1
    for result in messages[first:]:
        yield f"The tool {names.get(result.get('tool_call_id'), 'that I called')} returned: {_text(result)}"


def _offered(request: Mapping[str, Any]) -> list[Json]:
    """Returns the functions that `tools` and `tool_choice` let the model call."""
    functions = [one["function"] for one in request.get("tools") or () if one.get("type") == "function"]
    choice = request.get("tool_choice")
    if choice == "none":
        return []
    if isinstance(choice, dict) and choice.get("type") == "function":
        return [one for one in functions if one["name"] == choice["function"]["name"]]
    return functions


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(part["text"] for part in content if isinstance(part, dict) and part.get("type") == "text")
    return content if isinstance(content, str) else ""


def _chosen(functions: Sequence[Json], text: str) -> Json:
    said = text.lower()
    words = set(_WORD.findall(said))

    def fit(function: Json) -> tuple[bool, int]:
        name = str(function["name"]).lower()
        named = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said) is not None
        return named, len(words.intersection(_WORD.findall(name)))

    return max(functions, key=fit)  # the first of those that fit equally


def _arguments(parameters: Json, text: str) -> Json:
    """Returns arguments for the parameters, which are a JSON Schema of an object."""
    schemas: dict[str, Json] = parameters.get("properties") or {}
    given = {name: value.rstrip(".?!").strip('"') for name, value in _PAIR.findall(text)} | _json_object(text)
    arguments = {}
    for name, schema in schemas.items():
        if name in given and (fitting := _fitting(given[name], schema)):
            arguments[name] = fitting[0]
    numbers = iter(_NUMBER.findall(_PAIR.sub("", text)))
    for name in parameters.get("required") or ():
        if name not in arguments:
            arguments[name] = _filled(schemas.get(name) or {}, text, numbers)
    return arguments


def _json_object(text: str) -> Json:
    try:
        value, _ = json.JSONDecoder().raw_decode(text, text.index("{"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _fitting(value: Any, schema: Json) -> list[Any]:
    """Returns the value as the schema has it, alone in a list; an empty one where it does not fit."""
    kind = _kind(schema)
    if isinstance(value, str) and kind != "string":
        value = _TRUTH.get(value.lower()) if kind == "boolean" else _from_json(value)
    fits = isinstance(value, _OF_TYPE.get(kind, object)) and (kind == "boolean" or not isinstance(value, bool))
    return [value] if fits and value in schema.get("enum", [value]) else []


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _filled(schema: Json, text: str, numbers: Iterator[str]) -> Any:
    """Returns a value for what is required and was not given by its name."""
    if "default" in schema:
        return schema["default"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = _kind(schema)
    if kind in ("integer", "number"):
        return next((fitting[0] for number in numbers if (fitting := _fitting(number, schema))), _PLAIN[kind])
    return _PLAIN.get(kind, text)


def _kind(schema: Json) -> str:
    """Returns the type that a schema asks for, the first of several; "string" where it names none."""
    kind = schema.get("type") or next((one["type"] for one in schema.get("anyOf") or () if "type" in one), "string")
    return str(kind[0] if isinstance(kind, list) and kind else kind)
