"""Bounds on YAML that somebody else wrote, checked before anything is made of it."""

import io
import warnings
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLWarning
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent, ScalarEvent

MAX_DEPTH = 100
MAX_NODES = 1_000_000
"""Values and keys, with those that aliases stand for."""


class YamlTooLarge(ValueError):
    """A document that is nested too deeply, or holds too much once its aliases are written out."""


def load_yaml(text: str, yaml: YAML | None = None) -> Any:
    """Returns what one document says, as plain values unless `yaml` makes others. Raises what `check_yaml` raises."""
    check_yaml(text)
    with warnings.catch_warnings(action="ignore", category=YAMLWarning):  # an anchor may be reused
        return (yaml or YAML(typ="safe", pure=True)).load(text)


def check_yaml(text: str) -> None:
    """Raises `YamlTooLarge`, and ruamel's `YAMLError` for what is no YAML. Takes time in proportion to the text."""
    nodes = 0
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    for event in YAML(typ="safe", pure=True).parse(io.StringIO(text)):
        if isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise YamlTooLarge(f"line {event.start_mark.line + 1}: {event.anchor!r} contains itself")
            nodes += sizes.get(event.anchor, 1)
        elif isinstance(event, CollectionStartEvent):
            open_nodes.append((event.anchor, nodes))
            nodes += 1
            if len(open_nodes) > MAX_DEPTH:
                raise YamlTooLarge(f"line {event.start_mark.line + 1}: is nested more than {MAX_DEPTH} levels deep")
        elif isinstance(event, CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = nodes - before
        elif isinstance(event, ScalarEvent | NodeEvent):
            nodes += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if nodes > MAX_NODES:
            raise YamlTooLarge(f"holds more than {MAX_NODES} values once aliases are written out")
