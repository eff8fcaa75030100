"""Validates the content of a revision: its own rules, its template, and the providers of gateways."""

import asyncio
import itertools
from dataclasses import replace
from datetime import datetime

from config_svc.agents.json_schema import MAX_VIOLATIONS, parameter_violations
from config_svc.model.agent import DEFAULT_TEMPLATE, MAX_FALLBACKS, AgentSpec, ModelConfig, ModelFallback
from config_svc.model.argument_schema import argument_schema_violations
from config_svc.model.errors import ParametersInvalid, TemplateNotFound, missing_template
from config_svc.model.provider import check_model, union
from config_svc.model.template import Template, version_order
from config_svc.model.tools import MAX_TOOLS, MAX_TOOLS_BYTES, tools_bytes
from config_svc.ports.store import Transaction
from contract.fields import is_resource_id
from servicekit.errors import Violation, Violations

PATH = "agent_config"


async def validate_spec(
    transaction: Transaction, spec: AgentSpec, found: Violations, *, now: datetime, current: AgentSpec | None = None
) -> AgentSpec:
    """Returns the content with its template version; raises with all violations, including those in `found`. Provider
    and model are checked only if they differ from `current`: gateways may withdraw a provider, and its agents must
    still accept other changes.
    """
    spec.check(found, PATH)
    await _check_tool_schemas(found, spec)
    chosen = _newly_chosen(spec.model, current.model if current is not None else None)
    if chosen:
        known = union(await transaction.published_providers(now))
        for path, model in chosen:
            check_model(found, path, model, known)
    content = replace(spec, template_id=spec.template_id or DEFAULT_TEMPLATE)
    template = await _template(transaction, content)
    if template is None:
        raise _no_template(content, found)
    _check_placeholders(found, content, template)
    broken = await asyncio.to_thread(
        parameter_violations,
        template.parameters_schema,
        {**template.defaults, **content.parameters},
        f"{PATH}.parameters",
    )
    if broken and not found:
        raise ParametersInvalid(broken)
    for violation in broken:
        found.add(violation.field, violation.description)
    found.check()
    return replace(content, template_version=template.version)


def _newly_chosen(model: ModelConfig, current: ModelConfig | None) -> list[tuple[str, ModelConfig | ModelFallback]]:
    """Returns the models that a write chooses, with their paths: those that the content before it did not name."""
    named: list[tuple[str, ModelConfig | ModelFallback]] = [(f"{PATH}.model", model)]
    # More than there may be are a violation by themselves.
    named += [(f"{PATH}.model.fallbacks[{i}]", one) for i, one in enumerate(model.fallbacks[:MAX_FALLBACKS])]
    before: list[ModelConfig | ModelFallback] = [] if current is None else [current, *current.fallbacks]
    known = {(one.provider, one.name) for one in before}
    return [(path, one) for path, one in named if (one.provider, one.name) not in known]


async def _check_tool_schemas(found: Violations, spec: AgentSpec) -> None:
    schemas = [
        (f"{PATH}.tools[{index}].client.parameters", tool.client.parameters)
        for index, tool in enumerate(spec.tools[:MAX_TOOLS])
        if tool.client is not None and tool.client.parameters
    ]
    if not schemas or tools_bytes(spec.tools) > MAX_TOOLS_BYTES:
        return
    broken = await asyncio.to_thread(lambda: [argument_schema_violations(schema, path) for path, schema in schemas])
    for violation in itertools.islice(itertools.chain.from_iterable(broken), MAX_VIOLATIONS):
        found.add(violation.field, violation.description)


def _no_template(content: AgentSpec, found: Violations) -> TemplateNotFound:
    problem = missing_template(content.template_id, content.template_version)
    path = f"{PATH}.template_version" if content.template_version else f"{PATH}.template_id"
    if found:
        found.add(path, problem)
        found.check()
    return TemplateNotFound(content.template_id, content.template_version, violations=[Violation(path, problem)])


def _check_placeholders(found: Violations, content: AgentSpec, template: Template) -> None:
    unfilled = template.unfilled(content.instructions, content.parameters, content.metadata_keys)
    for name in unfilled[:MAX_VIOLATIONS]:
        found.add(
            f"{PATH}.instructions",
            f"nothing fills {{{{{name}}}}}: it is neither a parameter nor one of metadata_keys",
        )


async def _template(transaction: Transaction, content: AgentSpec) -> Template | None:
    if not is_resource_id(content.template_id):
        return None
    if content.template_version and version_order(content.template_version) is None:
        return None
    return await transaction.template(content.template_id, content.template_version)
