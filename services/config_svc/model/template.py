"""Templates: the kinds of agent that the runtime can build."""

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from config_svc.model import rules
from config_svc.model.rules import KIB, Json, canonical
from servicekit.errors import Violations

VersionOrder: TypeAlias = tuple[int, int, int]

_VERSION = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True)
class Template:
    """One published version of a template; never changes."""

    id: str
    version: str
    description: str
    parameters_schema: dict[str, Json]
    create_time: datetime

    def check(self, found: Violations, path: str) -> None:
        """Notes every broken rule under `path`; whether the schema is a good one is not known here."""
        rules.check_id(found, f"{path}.id", self.id)
        if version_order(self.version) is None:
            found.add(f"{path}.version", "must be MAJOR.MINOR.PATCH, each a number below 1000000000")
        rules.check_text(found, f"{path}.description", self.description, most=2000)
        rules.check_json(found, f"{path}.parameters_schema", self.parameters_schema, most=64 * KIB)
        if self.parameters_schema.get("type") != "object":
            found.add(f"{path}.parameters_schema.type", "must be 'object'")

    @property
    def weight(self) -> int:
        """About how many bytes it takes in a message."""
        return 256 + len(self.description) + rules.JSON_OVERHEAD * len(canonical(self.parameters_schema))

    @property
    def order(self) -> VersionOrder:
        """By which the newest version is found."""
        return version_order(self.version) or (0, 0, 0)

    def same_content(self, other: "Template") -> bool:
        """Tells whether both declare the same, whenever they were published."""
        return replace(self, parameters_schema={}, create_time=other.create_time) == replace(
            other, parameters_schema={}
        ) and canonical(self.parameters_schema) == canonical(other.parameters_schema)


def version_order(version: str) -> VersionOrder | None:
    """Returns the numbers of a semantic version MAJOR.MINOR.PATCH, or None when it is none."""
    match = _VERSION.fullmatch(version)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None
