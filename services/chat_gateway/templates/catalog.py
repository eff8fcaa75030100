"""All templates of this gateway, and which of them builds a config."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from chat_gateway.agents.agent import Agent
from chat_gateway.agents.template import Template
from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.errors import TemplateNotBuildable
from chat_gateway.providers.provider import Provider
from servicekit.errors import StartupError

VERSION = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})")

_Order = tuple[int, int, int]


class TemplateCatalog:
    """The templates by id and MAJOR version. Raises `StartupError` for a duplicate or invalid version."""

    def __init__(self, templates: Iterable[Template]) -> None:
        self._versions: dict[str, dict[_Order, Template]] = {}
        for template in templates:
            versions, order = self._versions.setdefault(template.id, {}), _order(template.version)
            if order is None:
                raise StartupError(f"template {template.id!r}: version {template.version!r} is not MAJOR.MINOR.PATCH")
            if order in versions:
                raise StartupError(f"template {template.id!r} {template.version} is a duplicate")
            versions[order] = template

    def __iter__(self) -> Iterator[Template]:
        return (template for versions in self._versions.values() for template in versions.values())

    def build(self, config: AgentConfig, provider: Provider) -> Agent:
        """Returns the agent of a config, built by the newest version of the MAJOR that it was written for.

        Raises `TemplateNotBuildable` where this gateway has none.
        """
        template = self._for(config)
        parameters = {**_defaults(template.parameters_schema), **config.parameters}
        return template.build(replace(config, parameters=parameters), provider)

    def _for(self, config: AgentConfig) -> Template:
        versions = self._versions.get(config.template_id, {})
        wanted = _order(config.template_version)
        fitting = [order for order in versions if wanted is None or order[0] == wanted[0]]
        if not fitting:
            raise TemplateNotBuildable(config.template_id, config.template_version)
        return versions[max(fitting)]


def _order(version: str) -> _Order | None:
    match = VERSION.fullmatch(version)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _defaults(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties", {})
    return {name: one["default"] for name, one in properties.items() if isinstance(one, Mapping) and "default" in one}
