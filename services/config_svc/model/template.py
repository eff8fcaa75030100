"""Templates: the kinds of agent that the runtime can build."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from config_svc.model import rules
from config_svc.model.rules import KIB, Json, canonical
from contract import placeholders
from contract.fields import check_resource_id
from servicekit.errors import Violations

VersionOrder: TypeAlias = tuple[int, int, int]

_VERSION = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class Placeholders:
    """What a template fills `{{name}}` in instructions with: parameters, session metadata, names of its own."""

    parameters: bool = False
    session_metadata: bool = False
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """One published version of a template; never changes. `placeholders` None: it says nothing of them."""

    id: str
    version: str
    description: str
    parameters_schema: dict[str, Json]
    create_time: datetime
    placeholders: Placeholders | None = None

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`; whether the schema is a good one is not known here."""
        check_resource_id(found, f"{path}.id", self.id)
        if version_order(self.version) is None:
            found.add(f"{path}.version", "must be MAJOR.MINOR.PATCH, each a number below 1000000000")
        rules.check_text(found, f"{path}.description", self.description, maximum=2000)
        rules.check_json(found, f"{path}.parameters_schema", self.parameters_schema, maximum=64 * KIB)
        if self.parameters_schema.get("type") != "object":
            found.add(f"{path}.parameters_schema.type", "must be 'object'")
        if self.placeholders is not None:
            rules.check_placeholder_names(found, f"{path}.placeholders.names", self.placeholders.names)

    @property
    def weight(self) -> int:
        """The approximate number of bytes that it takes in a message."""
        return 256 + len(self.description) + rules.JSON_OVERHEAD * len(canonical(self.parameters_schema))

    @property
    def order(self) -> VersionOrder:
        """By which the newest version is found."""
        return version_order(self.version) or (0, 0, 0)

    @property
    def defaults(self) -> dict[str, Json]:
        """The defaults of parameters."""
        properties = self.parameters_schema.get("properties")
        if not isinstance(properties, dict):
            return {}
        return {name: one["default"] for name, one in properties.items() if isinstance(one, dict) and "default" in one}

    def unfilled(self, instructions: str, parameters: Iterable[str], metadata_keys: Iterable[str]) -> list[str]:
        """Returns the placeholders of instructions that this template, by what it says, fills with nothing."""
        sources = self.placeholders
        if sources is None:
            return []
        known = set(sources.names)
        if sources.parameters:
            known |= {*parameters, *self.defaults}
        if sources.session_metadata:
            known |= {*metadata_keys}
        return [name for name in placeholders.names(instructions) if name not in known]

    def same_content(self, other: "Template") -> bool:
        """Returns whether both declare the same, whenever they were published."""
        return replace(self, parameters_schema={}, create_time=other.create_time) == replace(
            other, parameters_schema={}
        ) and canonical(self.parameters_schema) == canonical(other.parameters_schema)


def version_order(version: str) -> VersionOrder | None:
    """Returns the numbers of a semantic version MAJOR.MINOR.PATCH, or None when it is none."""
    match = _VERSION.fullmatch(version)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None
