"""What a revision's content must agree with, and what is reported of it: on both stores."""

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from config_svc.agents.configs import AgentConfigs
from config_svc.agents.providers import PublishedProviders
from config_svc.agents.templates import Templates
from config_svc.model.agent import ModelConfig, ModelFallback
from config_svc.model.errors import AgentNotFound, ParametersInvalid, RevisionNotFound
from config_svc.model.fields import NOT_SET, Difference
from config_svc.model.provider import Provider
from config_svc.model.template import Placeholders, Template
from config_svc.ports.store import Store
from config_svc.sweep import Sweep
from servicekit.errors import InvalidArgument
from tests.contract.config_svc.conftest import Clock, spec

P = "default"
GATEWAY, OTHER = str(uuid.uuid4()), str(uuid.uuid4())


@pytest.fixture
def providers(store: Store, clock: Clock) -> PublishedProviders:
    return PublishedProviders(store, clock=clock)


async def violations(call: Any) -> list[str]:
    with pytest.raises(InvalidArgument) as caught:
        await call
    return [one.field for one in caught.value.violations]


async def publish(store: Store, clock: Clock, template_id: str, schema: dict[str, Any], **sources: Any) -> None:
    placeholders = Placeholders(**sources) if sources else None
    await Templates(store, clock=clock).publish(
        Template(template_id, "1.0.0", "", {"type": "object", **schema}, clock(), placeholders)
    )


async def test_placeholders_that_nothing_fills_are_refused(agents: AgentConfigs, store: Store, clock: Clock) -> None:
    schema = {"properties": {"tone": {"type": "string", "default": "kind"}}}
    await publish(store, clock, "full", schema, parameters=True, session_metadata=True, names=("today",))
    good = {"template_id": "full", "parameters": {"company": "Acme"}, "metadata_keys": ("customer",)}
    text = "{{company}} {{ tone }} {{customer}} {{today}} {not} {{not that}}"
    stored = await agents.create(P, "a", spec(instructions=text, **good))
    assert (await agents.get(P, "a")).spec == stored.spec
    assert stored.spec.metadata_keys == ("customer",)
    assert "tone" not in stored.spec.parameters, "defaults are not stored"

    bad = spec(instructions="{{compnay}} {{other}} {{other}}", **good)
    with pytest.raises(InvalidArgument) as caught:
        await agents.create(P, "b", bad, validate_only=True)
    assert [(one.field, one.description.partition(":")[0]) for one in caught.value.violations] == [
        ("agent_config.instructions", "nothing fills {{compnay}}"),
        ("agent_config.instructions", "nothing fills {{other}}"),
    ]
    # What made a placeholder good may not be taken away from under it.
    assert await violations(agents.update(P, "a", spec(), ["parameters"])) == ["agent_config.instructions"]
    assert await violations(agents.update(P, "a", spec(), ["metadata_keys"])) == ["agent_config.instructions"]


@pytest.mark.parametrize(
    ("sources", "refused"),
    [
        ({}, []),
        ({"names": ()}, ["p", "m", "n"]),
        ({"parameters": True}, ["m", "n"]),
        ({"session_metadata": True}, ["p", "n"]),
        ({"names": ("n",)}, ["p", "m"]),
    ],
)
async def test_a_template_says_what_it_fills(
    agents: AgentConfigs, store: Store, clock: Clock, sources: dict[str, Any], refused: list[str]
) -> None:
    await publish(store, clock, "t", {}, **sources)
    content = spec(template_id="t", instructions="{{p}}{{m}}{{n}}", parameters={"p": 1}, metadata_keys=("m",))
    if refused:
        assert len(await violations(agents.create(P, "a", content))) == len(refused)
    else:
        assert (await agents.create(P, "a", content)).revision == 1


async def test_a_default_stands_in_for_a_parameter_that_is_left_out(
    agents: AgentConfigs, store: Store, clock: Clock
) -> None:
    schema = {"properties": {"tone": {"type": "string", "default": "kind"}}, "required": ["tone"]}
    await publish(store, clock, "t", schema)
    assert (await agents.create(P, "a", spec(template_id="t"))).spec.parameters == {}
    with pytest.raises(ParametersInvalid) as caught:
        await agents.create(P, "b", spec(template_id="t", parameters={"tone": 1}))
    assert [one.field for one in caught.value.violations] == ["agent_config.parameters.tone"]


async def test_a_default_must_fit_its_own_schema(store: Store, clock: Clock) -> None:
    schema = {"properties": {"n": {"type": "integer", "default": "one"}, "m": {"default": 1}}, "required": ["x"]}
    assert await violations(publish(store, clock, "t", schema)) == ["template.parameters_schema.properties.n"]


async def test_a_template_that_says_otherwise_is_another(store: Store, clock: Clock) -> None:
    await publish(store, clock, "t", {}, parameters=True)
    await publish(store, clock, "t", {}, parameters=True)
    with pytest.raises(Exception, match="published with other content"):
        await publish(store, clock, "t", {})


async def test_provider_and_model_are_those_of_live_gateways(
    agents: AgentConfigs, providers: PublishedProviders, clock: Clock
) -> None:
    unknown = spec(model=ModelConfig("nowhere", "small"))
    await agents.create(P, "before-any-gateway", unknown)
    await providers.publish(GATEWAY, [Provider("local", ("small",)), Provider("any")], timedelta(minutes=1))
    await agents.create(P, "a", spec())
    await agents.create(P, "b", spec(model=ModelConfig("any", "whatever")))
    with pytest.raises(InvalidArgument) as caught:
        await agents.create(P, "c", unknown, validate_only=True)
    assert [(one.field, one.description) for one in caught.value.violations] == [
        ("agent_config.model.provider", "no gateway has 'nowhere'; there are any, local")
    ]
    wrong_model = spec(model=ModelConfig("local", "large"))
    assert await violations(agents.create(P, "c", wrong_model)) == ["agent_config.model.name"]
    assert await violations(agents.update(P, "a", wrong_model, ["model"])) == ["agent_config.model.name"]
    everything = spec(model=ModelConfig("nowhere", ""), display_name="x" * 201, template_id="none")
    assert await violations(agents.create(P, "c", everything)) == [
        "agent_config.display_name",
        "agent_config.model.name",
        "agent_config.model.provider",
        "agent_config.template_id",
    ]


async def test_a_provider_that_is_gone_keeps_nobody_from_other_changes(
    agents: AgentConfigs, providers: PublishedProviders
) -> None:
    await agents.create(P, "a", spec())
    await agents.update(P, "a", spec(model=ModelConfig("other", "x")), ["model"])
    await providers.publish(GATEWAY, [Provider("other")], None)
    changed = await agents.update(P, "a", spec(display_name="A"), ["display_name"])
    assert changed.spec.display_name == "A"
    assert await violations(agents.rollback(P, "a", 1)) == ["agent_config.model.provider"]


async def test_providers_are_the_union_of_live_gateways(
    agents: AgentConfigs, providers: PublishedProviders, store: Store, clock: Clock, sweep: Sweep
) -> None:
    async def listed(size: int = 0) -> Sequence[Provider]:
        found, token = await providers.list(size=size, token="")
        while token:
            more, token = await providers.list(size=size, token=token)
            found = [*found, *more]
        return found

    await providers.publish(GATEWAY, [Provider("old", ("a", "b")), Provider("both", ("a",))], timedelta(seconds=60))
    clock.advance(seconds=30)
    await providers.publish(OTHER.upper(), [Provider("new"), Provider("both", ("b",))], timedelta(seconds=60))
    union = [Provider("both", ("a", "b")), Provider("new"), Provider("old", ("a", "b"))]
    assert await listed() == await listed(1) == union
    await agents.create(P, "a", spec(model=ModelConfig("old", "b")))
    await agents.create(P, "b", spec(model=ModelConfig("new", "b")))
    clock.advance(seconds=30)  # the gateway with `old` is gone
    assert await listed() == [Provider("both", ("b",)), Provider("new")]
    assert await violations(agents.create(P, "c", spec(model=ModelConfig("old", "b")))) == [
        "agent_config.model.provider"
    ]
    clock.advance(microseconds=1)
    assert await store.forget_providers(clock()) == 1
    await providers.publish(OTHER, [], None)
    assert await listed() == []
    await providers.publish(OTHER, [Provider("new")], timedelta(seconds=1))
    clock.advance(seconds=2)
    await sweep.once()
    assert await store.forget_providers(clock()) == 0


async def test_one_gateway_of_any_model_makes_it_any(agents: AgentConfigs, providers: PublishedProviders) -> None:
    await providers.publish(GATEWAY, [Provider("local", ("other",))], None)
    assert await violations(agents.create(P, "a", spec())) == ["agent_config.model.name"]
    await providers.publish(OTHER, [Provider("local")], None)
    assert (await agents.create(P, "a", spec())).revision == 1


async def test_what_is_no_publication_is_refused(providers: PublishedProviders) -> None:
    wrong = [Provider("No", ("",)), Provider("a"), Provider("a", ("x" * 201,))]
    assert await violations(providers.publish("x", wrong, timedelta(hours=2))) == [
        "ttl",
        "gateway_id",
        "providers[0].name",
        "providers[0].models[0]",
        "providers[2].models[0]",
        "providers[2].name",
    ]
    many = [Provider(f"p{n}") for n in range(257)]
    assert await violations(providers.publish(GATEWAY, many, None)) == ["providers"]


async def test_two_revisions_are_compared(agents: AgentConfigs) -> None:
    await agents.create(P, "a", spec(labels={"team": "x"}))
    await agents.update(P, "a", spec(display_name="A", model=ModelConfig("local", "large")), ["display_name", "model"])
    await agents.update(P, "a", spec(labels={"team": "y"}), ["labels"])
    team = Difference("labels.team", "x", "y")
    name = Difference("display_name", NOT_SET, "A")
    model = Difference("model.name", "small", "large")
    assert await agents.compare(P, "a", before=1, after=3) == (1, 3, [name, model, team])
    assert await agents.compare(P, "a") == (2, 3, [team])
    assert await agents.compare(P, "a", after=2) == (1, 2, [name, model])
    assert await agents.compare(P, "a", before=3, after=1) == (
        3,
        1,
        [Difference(one.path, one.after, one.before) for one in (name, model, team)],
    )
    assert await agents.compare(P, "a", before=2, after=2) == (2, 2, [])
    number, _, first = await agents.compare(P, "a", after=1)
    assert (number, [one.path for one in first]) == (
        0,
        ["template_id", "template_version", "model.provider", "model.name", "labels.team"],
    )
    for wrong in ({"before": 4}, {"after": 9}):
        with pytest.raises(RevisionNotFound):
            await agents.compare(P, "a", **wrong)
    with pytest.raises(AgentNotFound):
        await agents.compare(P, "b")
    assert await violations(agents.compare(P, "a", before=-1, after=-1)) == ["from_revision", "to_revision"]


async def test_undelete_by_the_id_that_was_deleted_last(agents: AgentConfigs, clock: Clock) -> None:
    first = await agents.create(P, "a", spec())
    await agents.delete(P, "a")
    clock.advance(hours=1)
    second = await agents.create(P, "a", spec())
    await agents.delete(P, "a")
    assert (await agents.undelete(P, deleted_id="a")).uid == second.uid
    back = await agents.undelete(P, deleted_id="a", agent_id="b")
    assert (back.uid, back.id) == (first.uid, "b")
    with pytest.raises(AgentNotFound):
        await agents.undelete(P, deleted_id="a")
    with pytest.raises(AgentNotFound):
        await agents.undelete("other", deleted_id="a")
    assert await agents.undelete(P, first.uid, "b", deleted_id="a") == back, "safe to retry"
    await agents.delete(P, "b")
    with pytest.raises(AgentNotFound):
        await agents.undelete(P, first.uid, deleted_id="a")
    assert (await agents.undelete(P, first.uid, deleted_id="b")) == back
    assert await violations(agents.undelete(P, deleted_id="No")) == ["deleted_id"]
    assert await violations(agents.undelete(P)) == ["uid"]


async def test_fallbacks_are_checked_like_the_model_itself_where_a_write_chooses_them(
    agents: AgentConfigs, providers: PublishedProviders
) -> None:
    before = spec(model=ModelConfig("local", "small", fallbacks=(ModelFallback("old", "m"),)))
    await agents.create(P, "a", before)
    await providers.publish(GATEWAY, [Provider("local", ("small",)), Provider("any")], timedelta(minutes=1))
    good = ModelConfig("local", "small", fallbacks=(ModelFallback("old", "m"), ModelFallback("any", "whatever")))
    updated = await agents.update(P, "a", spec(model=good), ["model.fallbacks"])
    assert updated.spec.model.fallbacks == good.fallbacks, (
        "what was named before stays, and what gateways have is taken"
    )
    bad = ModelConfig("local", "small", fallbacks=(ModelFallback("nowhere", "m"), ModelFallback("local", "large")))
    assert await violations(agents.update(P, "a", spec(model=bad), ["model"])) == [
        "agent_config.model.fallbacks[0].provider",
        "agent_config.model.fallbacks[1].name",
    ]
