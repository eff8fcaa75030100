"""What the OpenAPI document says of fields is what the services check: at a bound a value is taken, beyond it not."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from chat_gateway.http_edge.admin.described_rules import SCHEMAS
from tests.servers.mock_model import MODEL
from tests.servers.system import PROVIDER, System

AGENT_PARTS = {"AgentInput": "", "Model": "model", "Memory": "memory", "Limits": "limits", "SessionPolicy": "session"}
CHAT = "ChatCompletionRequest"


def values(rules: dict[str, Any], *, of_texts: bool) -> tuple[list[Any], list[Any]]:
    """Values at the bounds, and values beyond them."""
    good: list[Any] = []
    bad: list[Any] = []
    if "minimum" in rules:
        (bad if rules.get("exclusiveMinimum") else good).append(rules["minimum"])
        bad.append(rules["minimum"] - 1)
    if "maximum" in rules:
        good.append(rules["maximum"])
        bad.append(rules["maximum"] + 1)
    if "maxLength" in rules:
        good.append("x" * rules["maxLength"])
        bad.append("x" * (rules["maxLength"] + 1))
    if rules.get("minLength"):
        bad.append("")
    if "maxItems" in rules and of_texts:
        good.append([f"n{number}" for number in range(rules["maxItems"])])
        bad.append([f"n{number}" for number in range(rules["maxItems"] + 1)])
    if "maxProperties" in rules:
        good.append({f"n{number}": "x" for number in range(rules["maxProperties"])})
        bad.append({f"n{number}": "x" for number in range(rules["maxProperties"] + 1)})
    if "enum" in rules:
        bad.append("something-else")
    if "pattern" in rules:
        bad.append("no such ä")
    return good, bad


def cases() -> Iterator[Any]:
    for schema in (*AGENT_PARTS, CHAT):
        for field, rules in SCHEMAS[schema].items():
            good, bad = values(rules, of_texts=field in ("stop", "metadata_keys"))
            if (schema, field) == ("Model", "provider"):
                good.clear()  # only what gateways have is taken
            if good or bad:
                yield pytest.param(schema, field, good, bad, id=f"{schema}.{field}")


@pytest.fixture(scope="module")
def agent(parley_system: System) -> str:
    name = f"agent-{uuid4().hex[:8]}"
    parley_system.create_agent(name)
    return name


def refused(system: System, agent: str, schema: str, field: str, value: Any) -> bool:
    """Whether the value is refused for the field's sake."""
    with httpx.Client(base_url=system.http_url, timeout=30, trust_env=False) as http:
        if schema == CHAT:
            body: dict[str, Any] = {"model": agent, "messages": [{"role": "user", "content": "hi"}]}
            answer = http.post("/v1/chat/completions", json=body | {field: value})
        else:
            model = {"provider": PROVIDER, "name": MODEL}
            body = {"id": f"new-{uuid4().hex[:8]}", "model": model}
            part = AGENT_PARTS[schema]
            body |= {part: body.get(part, {}) | {field: value}} if part else {field: value}
            answer = http.post("/v1/agents", json=body, params={"validate_only": "true"})
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 200:
        return False
    error = answer.json()["error"]
    return error["code"] == "invalid_field" and any(field in one["field"] for one in error["violations"])


@pytest.mark.parametrize(("schema", "field", "good", "bad"), list(cases()))
def test_the_bound_is_the_bound(
    parley_system: System, agent: str, schema: str, field: str, good: list[Any], bad: list[Any]
) -> None:
    assert [value for value in good if refused(parley_system, agent, schema, field, value)] == []
    assert [value for value in bad if not refused(parley_system, agent, schema, field, value)] == []
