"""Use cases of templates. A published version never changes and is never removed."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from config_svc import paging
from config_svc.agents.json_schema import parameter_violations, schema_violations
from config_svc.audit.events import template_event
from config_svc.model.errors import TemplateConflict, TemplateNotFound
from config_svc.model.template import Template, version_order
from config_svc.ports.store import Store, Transaction
from contract.fields import is_resource_id
from servicekit.errors import Violation, Violations


class Templates:
    """The use cases."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock

    async def publish(self, template: Template) -> Template:
        """Stores a template version; the same content again changes nothing, other content is TemplateConflict."""
        found = Violations()
        template.check(found, "template")
        path = "template.parameters_schema"
        for violation in await asyncio.to_thread(schema_violations, template.parameters_schema, path):
            found.add(violation.field, violation.description)
        found.check()
        for violation in await asyncio.to_thread(_unfit_defaults, template, f"{path}.properties"):
            found.add(violation.field, violation.description)
        found.check()
        now = self._clock()

        async def work(transaction: Transaction) -> Template:
            stored, is_new = await transaction.publish(replace(template, create_time=now))
            if is_new:
                await transaction.record([template_event(stored, now)])
            return stored

        stored = await self._store.transact(work)
        if not stored.same_content(template):
            raise TemplateConflict(template.id, template.version)
        return stored

    async def get(self, template_id: str, version: str) -> Template:
        """Reads a template version, the newest when `version` is empty; raises TemplateNotFound."""
        found = Violations()
        if not template_id:
            found.add("id", "is required")
        found.check()
        template = None
        if is_resource_id(template_id) and (not version or version_order(version) is not None):
            template = await self._store.template(template_id, version)
        if template is None:
            raise TemplateNotFound(template_id, version)
        return template

    async def list(self, *, size: int, token: str) -> tuple[Sequence[Template], str]:
        """Reads one page of the newest versions, and the token of the next page, which is empty on the last."""

        async def fetch(place: paging.Place | None, count: int) -> Sequence[Template]:
            return await self._store.templates(place[0] if place else "", count)

        return await paging.read_page(
            fetch,
            ("templates",),
            size=size,
            token=token,
            types=[str],
            place_of=lambda template: (template.id,),
            weigh=lambda template: template.weight,
        )


def _unfit_defaults(template: Template, path: str) -> list[Violation]:
    """Returns where a default violates its own schema; missing properties are no violations."""
    broken = parameter_violations(template.parameters_schema, template.defaults, path)
    own = [f"{path}.{name}" for name in template.defaults]
    within = tuple(f"{place}{step}" for place in own for step in (".", "["))
    return [violation for violation in broken if violation.field in own or violation.field.startswith(within)]
