"""Files that declare an agent or a tool server each: YAML 1.2; fields have lines, comments and order stay."""

import contextlib
import enum
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarfloat import ScalarFloat
from ruamel.yaml.scalarstring import LiteralScalarString

from parley_cli.declared.yaml_bounds import YamlTooLarge, load_yaml
from servicekit.files import read_text_file

MAX_BYTES = 16 * 1024 * 1024
"""More than the server takes."""
SUFFIXES = (".yaml", ".yml")
OUTPUT_ONLY = frozenset(
    {"object", "uid", "revision", "etag", "create_time", "update_time", "delete_time", "purge_time"}
)
"""What the server sets. In a file they are ignored, so that what was read can be used as one (AIP-203)."""

OPENAPI_FILE = "openapi_file"
"""In place of `http.openapi`: the path of a document in JSON or YAML, from the file's folder."""

EXACT = frozenset({"parameters", "labels"})
"""Fields whose entries are the user's own: an empty one is one."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file, or one field of it."""

    file: Path
    line: int | None
    field: str
    description: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else str(self.file)
        return f"{place}: {self.field}: {self.description}" if self.field else f"{place}: {self.description}"


class Kind(enum.Enum):
    """What a file declares; the value is the collection of the API."""

    TOOL_SERVER = "tool_servers"
    AGENT = "agents"

    @property
    def words(self) -> str:
        """What it is called."""
        return "tool server" if self is Kind.TOOL_SERVER else "agent"


_KINDS = {"agent": Kind.AGENT, "tool_server": Kind.TOOL_SERVER}


class BadFile(Exception):
    """A file that declares neither an agent nor a tool server."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class AgentFile:
    """One file. `id` is the agent's, or tool server's: the field, or the file's name where there is none."""

    def __init__(self, path: Path) -> None:
        """Reads the file. Raises `BadFile`."""
        self.path = path
        try:
            text = read_text_file(path, MAX_BYTES)
            loaded = load_yaml(text, _yaml())
        except OSError as error:
            raise BadFile(Problem(path, None, "", error.strerror or "can't be read")) from None
        except UnicodeDecodeError:
            raise BadFile(Problem(path, None, "", "is not UTF-8")) from None
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark is not None else None
            raise BadFile(Problem(path, line, "", f"is not YAML: {error.problem or error.context}")) from None
        except YAMLError as error:
            raise BadFile(Problem(path, None, "", f"is not YAML: {' '.join(str(error).split())}")) from None
        except YamlTooLarge as error:
            raise BadFile(Problem(path, None, "", str(error))) from None
        except (ValueError, TypeError, AttributeError) as error:  # numbers of thousands of digits, say
            raise BadFile(Problem(path, None, "", f"is not YAML that JSON can hold: {str(error)[:200]}")) from None
        if not isinstance(loaded, CommentedMap):
            raise BadFile(Problem(path, None, "", "must hold one agent, as fields"))
        self.document = loaded
        if "kind" in loaded and str(loaded["kind"]) not in _KINDS:
            raise BadFile(self.problem("kind", f"must be one of {', '.join(_KINDS)}"))

    @property
    def kind(self) -> Kind:
        """What it declares: what the field `kind` says, else a tool server where it has `mcp`, `http` or `a2a`."""
        by_shape = Kind.TOOL_SERVER if {"mcp", "http", "a2a"} & self.document.keys() else Kind.AGENT
        return _KINDS.get(str(self.document.get("kind")), by_shape)

    @property
    def id(self) -> str:
        """The id of the agent, or tool server, that it declares."""
        given = self.document.get("id")
        return self.path.stem if given is None else str(given)

    def content(self) -> tuple[dict[str, Any], list[Problem]]:
        """Returns it as JSON, and what in the file can't be JSON, which is left out."""
        problems: list[Problem] = []
        content = {}
        for field, value in self.document.items():
            if field not in OUTPUT_ONLY and field != "kind":
                content[str(field)] = _as_json(value, str(field), problems, self)
        if isinstance(http := content.get("http"), dict) and self.kind is Kind.TOOL_SERVER and OPENAPI_FILE in http:
            content["http"] = self._with_document(http, problems)
        return content | {"id": self.id}, problems

    def _with_document(self, http: dict[str, Any], problems: list[Problem]) -> dict[str, Any]:
        """Returns `http` with the OpenAPI document of the file that it names, in JSON or YAML, beside this one."""
        left = {name: value for name, value in http.items() if name != OPENAPI_FILE}
        field = f"http.{OPENAPI_FILE}"
        if "openapi" in http:
            problems.append(self.problem(field, "must not stand beside openapi"))
            return left
        try:
            text = read_text_file(self.path.parent / str(http[OPENAPI_FILE]), MAX_BYTES)
            document = load_yaml(text)
            return left | {"openapi": json.dumps(document, ensure_ascii=False, separators=(",", ":"))}
        except OSError as error:
            problems.append(self.problem(field, f"can't be read: {error.strerror}"))
        except (UnicodeDecodeError, YAMLError, TypeError, ValueError, RecursionError):
            problems.append(self.problem(field, "is neither JSON nor YAML that can be JSON"))
        return left

    def problem(self, field: str, description: str) -> Problem:
        """Returns a problem of a field, with the line of the field, or of what contains it."""
        return Problem(self.path, _line_of(self.document, field), field, description)

    def update(self, agent: dict[str, Any]) -> bool:
        """Makes the file say what `agent` says; returns whether it did not before, and was written.

        What the file leaves out and means by that what it now would say stays left out. Comments and the order of
        fields stay; a field that goes takes the comment below it along.
        """
        wanted = {"kind": self.document["kind"], **agent} if "kind" in self.document else _without_kind(agent)
        if isinstance(wanted.get("tools"), list) and isinstance(self.document.get("tools"), list):
            wanted["tools"] = _as_short_as(self.document["tools"], wanted["tools"])
        http = self.document.get("http")
        if isinstance(http, dict) and OPENAPI_FILE in http and isinstance(wanted.get("http"), dict):
            kept = {name: value for name, value in wanted["http"].items() if name != "openapi"}
            wanted["http"] = kept | {OPENAPI_FILE: http[OPENAPI_FILE]}  # the document stays where it is
        if "template_version" not in self.document:
            wanted.pop("template_version", None)
        if "template_id" not in self.document and wanted.get("template_id") == "assistant":
            del wanted["template_id"]
        if "id" not in self.document and wanted.get("id") == self.path.stem:
            del wanted["id"]
        if not _merge(self.document, wanted):
            return False
        _keep_exact(self.document)
        yaml = _yaml()
        mapping, dash = _indents(self.document)
        yaml.indent(mapping=mapping, sequence=dash + 2, offset=dash)
        out = io.StringIO()
        yaml.dump(self.document, out)
        self.path.write_text(out.getvalue(), encoding="utf-8")
        return True


def _as_short_as(old: list[Any], tools: list[Any]) -> list[Any]:
    """Returns tools in the short form (`mcp: github`) where one of the old entries says so in it."""
    return [next((short for short in old if _in_full(short) == tool), tool) for tool in tools]


def _in_full(tool: Any) -> Any:
    if not isinstance(tool, dict):
        return tool
    return {kind: {"tool_server": one} if isinstance(one, str) else one for kind, one in tool.items()}


def _without_kind(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "kind"}


def agent_files(folder: Path) -> tuple[list[AgentFile], list[Problem]]:
    """Reads every YAML file below `folder` (itself where it is a file), hidden ones left out, in order of path."""
    files: list[AgentFile] = []
    problems: list[Problem] = []
    first: dict[tuple[Kind, str], Path] = {}
    for path in sorted(_paths(folder)):
        try:
            file = AgentFile(path)
        except BadFile as error:
            problems.append(error.problem)
            continue
        name = (file.kind, file.id)
        if name in first:
            problems.append(file.problem("id", f"{file.id!r} is declared by {first[name]}, too"))
            continue
        first[name] = path
        files.append(file)
    return files, problems


def exported(agent: dict[str, Any], without_labels: frozenset[str]) -> dict[str, Any]:
    """Returns what a file says of an agent, or tool server, as the server gives it: what can be written and is set."""
    kind = {"kind": "tool_server"} if agent.get("object") == "tool_server" else {}
    content = kind | {field: value for field, value in agent.items() if field not in OUTPUT_ONLY}
    labels = {key: value for key, value in (content.get("labels") or {}).items() if key not in without_labels}
    content["labels"] = labels
    return {field: value for field, value in content.items() if value not in ("", None, {}, [])}


def as_yaml(content: dict[str, Any]) -> str:
    """Returns the text of a new file."""
    out = io.StringIO()
    _yaml().dump(_styled(content), out)
    return out.getvalue()


def _indents(document: CommentedMap) -> tuple[int, int]:
    """Returns by how many columns the file indents a mapping, and the dash of a list."""
    values = (one for one in document.values() if isinstance(one, CommentedMap | CommentedSeq))
    blocks = [one for one in values if one and not one.fa.flow_style()]
    columns = {
        kind: next((one.lc.col for one in blocks if isinstance(one, kind)), None)
        for kind in (CommentedMap, CommentedSeq)
    }
    return columns[CommentedMap] or 2, columns[CommentedSeq] or 0


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 100_000  # long lines of text stay as they are
    return yaml


def _paths(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix in SUFFIXES and not hidden and path.is_file():
            yield path


def _as_json(value: Any, field: str, problems: list[Problem], file: AgentFile) -> Any:
    match value:
        case str() if _has_half_a_character(value):
            problems.append(file.problem(field, "holds half of a character (a surrogate)"))
            return None
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case dict():
            found = {}
            for key, one in value.items():
                if isinstance(key, str):
                    found[key] = _as_json(one, f"{field}.{key}", problems, file)
                else:
                    problems.append(file.problem(field, f"the key {key!r} must be text: put it into quotes"))
            return found
        case list():
            return [_as_json(one, f"{field}[{index}]", problems, file) for index, one in enumerate(value)]
        case _:
            problems.append(file.problem(field, f"{value} is a {type(value).__name__} in YAML: put it into quotes"))
            return None


def _has_half_a_character(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text) if not text.isascii() else False


def _line_of(node: Any, path: str) -> int | None:
    line: int | None = None
    while path:
        if isinstance(node, CommentedMap):
            fitting = [key for key in node if isinstance(key, str) and f"{path}.".startswith((f"{key}.", f"{key}["))]
            if not fitting:
                break
            key = max(fitting, key=len)
            with contextlib.suppress(KeyError, TypeError):  # a key that came by a merge has no line
                line = node.lc.key(key)[0] + 1
            node, path = node[key], path[len(key) :].removeprefix(".")
        elif isinstance(node, CommentedSeq) and path.startswith("["):
            index, _, path = path[1:].partition("]")
            if not index.isdecimal() or int(index) >= len(node):
                break
            line, node, path = node.lc.item(int(index))[0] + 1, node[int(index)], path.removeprefix(".")
        else:
            break
    return line


def _merge(into: CommentedMap, wanted: dict[str, Any], *, exact: bool = False, top: bool = True) -> bool:
    """Changes `into` in place to say what `wanted` says; returns whether anything had to change."""
    changed = False
    for key in list(into):
        nothing = not exact and into[key] in ("", None, {}, [])
        if key not in wanted and not nothing and not (top and (key in OUTPUT_ONLY or key == "id")):
            del into[key]
            changed = True
    for key, value in wanted.items():
        old = into.get(key)
        if isinstance(old, CommentedMap) and isinstance(value, dict):
            changed |= _merge(old, value, exact=exact or (top and key in EXACT), top=False)
        elif key not in into or not _same(old, value):
            into[key] = _styled(value, old)
            changed = True
    return changed


def _keep_exact(node: Any) -> None:
    """Turns numbers with an exponent into plain ones: written back as they stood, they lose their last digit."""
    items = list(node.items() if isinstance(node, dict) else enumerate(node))
    for key, value in items:
        if isinstance(value, dict | list):
            _keep_exact(value)
        elif isinstance(value, ScalarFloat) and getattr(value, "_exp", None) is not None:
            node[key] = float(value)


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    return bool(old == new)


def _styled(value: Any, old: Any = None) -> Any:
    """Returns a value as it is to be written: text of several lines as a block, with the comment below the old one."""
    if isinstance(value, dict):
        return CommentedMap({key: _styled(one) for key, one in value.items()})
    if isinstance(value, list):
        return CommentedSeq([_styled(one) for one in value])
    if isinstance(value, str) and ("\n" in value or isinstance(old, LiteralScalarString)):
        block = LiteralScalarString(value)
        below = getattr(old, "comment", None)
        if below is not None:
            vars(block)["comment"] = below
        return block
    return value
