"""Lists by pages: on both stores."""

import pytest

from config_svc.agents.configs import AgentConfigs
from config_svc.edge.agents_convert import agent_to_proto
from config_svc.model.agent import ModelConfig
from config_svc.model.errors import InvalidPageToken
from parley.config.v1.agent_config_service_pb2 import ListAgentConfigsResponse
from servicekit.errors import InvalidArgument
from tests.contract.config_svc.conftest import Clock, spec

P = "default"


async def page(
    agents: AgentConfigs, *, size: int = 0, token: str = "", order_by: str = "", deleted: bool = False, project: str = P
) -> tuple[list[str], str]:
    found, following = await agents.list(
        project, size=size, token=token, filter_text="", order_by=order_by, show_deleted=deleted
    )
    return [one.id for one in found], following


async def everything(agents: AgentConfigs, size: int, order_by: str, deleted: bool = False) -> list[str]:
    ids, token = await page(agents, size=size, order_by=order_by, deleted=deleted)
    while token:
        more, token = await page(agents, size=size, token=token, order_by=order_by, deleted=deleted)
        assert more, "no page is empty"
        ids += more
    return ids


@pytest.mark.parametrize("size", [1, 3, 7, 8, 1000, 5000])
async def test_pages_hold_everything_once_in_order(agents: AgentConfigs, clock: Clock, size: int) -> None:
    ids = ["b", "a-b", "a", "d", "ab", "c", "a0"]
    for number, one in enumerate(ids):
        await agents.create(P, one, spec())
        if number % 2:
            clock.advance(microseconds=1)  # some share a create time
    await agents.update(P, "b", spec(display_name="x"), ["display_name"])
    await agents.create("other", "z", spec())
    assert await everything(agents, size, "") == sorted(ids)
    assert await everything(agents, size, "id desc") == sorted(ids, reverse=True)
    for order in ("create_time", "update_time"):
        forth, back = await everything(agents, size, order), await everything(agents, size, f"{order}  desc")
        assert sorted(forth) == sorted(ids)
        assert forth == back[::-1]
    assert (await everything(agents, size, "update_time desc"))[0] == "b" or (await agents.get(P, "b")).update_time == (
        await agents.get(P, "a0")
    ).update_time


async def test_a_list_goes_on_where_it_was_while_entries_come_and_go(agents: AgentConfigs) -> None:
    for one in ("a", "c", "e", "g"):
        await agents.create(P, one, spec())
    first, token = await page(agents, size=2)
    assert first == ["a", "c"]
    await agents.delete(P, "c")
    await agents.create(P, "b", spec())
    await agents.create(P, "d", spec())
    assert await page(agents, size=2, token=token) == (["d", "e"], (await page(agents, size=2, token=token))[1])


async def test_deleted_ones_show_only_when_asked_for_and_until_purged(agents: AgentConfigs, clock: Clock) -> None:
    await agents.create(P, "a", spec())
    await agents.delete(P, "a")
    await agents.create(P, "a", spec())
    await agents.create(P, "b", spec())
    assert await everything(agents, 1, "") == ["a", "b"]
    assert await everything(agents, 1, "", deleted=True) == ["a", "a", "b"]
    clock.advance(days=30)
    assert await everything(agents, 1, "", deleted=True) == ["a", "b"]


async def test_a_token_continues_only_its_own_list(agents: AgentConfigs) -> None:
    for one in ("a", "b", "c"):
        await agents.create(P, one, spec())
        await agents.create("other", one, spec())
    _, token = await page(agents, size=1)
    assert (await page(agents, size=2, token=token))[0] == ["b", "c"]
    wrong = [
        page(agents, token=token, project="other"),
        page(agents, token=token, order_by="id desc"),
        page(agents, token=token, order_by="create_time"),
        page(agents, token=token, deleted=True),
        page(agents, token=token[:-1]),
        page(agents, token=token[1:]),
        page(agents, token="%%%"),
        page(agents, token="ü"),
        page(agents, token="A" * 5000),
        agents.revisions(P, "a", size=1, token=token),
    ]
    for call in wrong:
        with pytest.raises(InvalidPageToken):
            await call


async def test_revisions_by_pages_belong_to_one_life_of_an_id(agents: AgentConfigs) -> None:
    await agents.create(P, "a", spec())
    for number in range(4):
        await agents.update(P, "a", spec(display_name=str(number)), ["display_name"])
    numbers, token = [], ""
    while True:
        _, revisions, token = await agents.revisions(P, "a", size=2, token=token)
        numbers += [one.number for one in revisions]
        if not token:
            break
        held = token
    assert numbers == [5, 4, 3, 2, 1]
    await agents.delete(P, "a")
    await agents.create(P, "a", spec())
    with pytest.raises(InvalidPageToken):
        await agents.revisions(P, "a", size=2, token=held)


@pytest.mark.parametrize("order_by", ["name", "id asc", "id desc desc", "desc", "id,create_time", "ID"])
async def test_an_unknown_order_is_refused(agents: AgentConfigs, order_by: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await page(agents, order_by=order_by)
    assert [one.field for one in caught.value.violations] == ["order_by"]


async def test_a_negative_page_size_is_refused(agents: AgentConfigs) -> None:
    with pytest.raises(InvalidArgument):
        await page(agents, size=-1)


FILTERS = [
    ("provider=p0", ["a0", "a2", "a4"]),
    ("NOT provider=p0", ["a1", "a3", "a5"]),
    ("model=m1 OR model=m2", ["a1", "a2", "a4", "a5"]),
    ("labels.n>1 AND labels.n<=4", ["a2", "a3", "a4"]),
    ("labels.odd:*", ["a1", "a3", "a5"]),
    ("labels.odd!=yes", ["a5"]),
    ("NOT labels.odd=yes", ["a0", "a2", "a4", "a5"]),
    ("labels.other=x", []),
    ("NOT labels.other=x", ["a0", "a1", "a2", "a3", "a4", "a5"]),
    ("labels.case<Z", ["a0"]),
    ("create_time>2026-01-01T12:00:02.123456Z", ["a3", "a4", "a5"]),
    ("create_time>=2026-01-01T13:00:02.123456+01:00 AND provider=p0", ["a2", "a4"]),
    ("create_time > 0001-01-01T00:00:00+23:59 AND model=m0", ["a0", "a3"]),
    ("create_time < 9999-12-31T23:59:59-23:59 AND model=m0", ["a0", "a3"]),
    ("template_id=assistant AND -(model=m0 OR model=m1)", ["a2", "a5"]),
    ("""labels.quote='"\\\\x'""", ["a0"]),
]


@pytest.mark.parametrize(("text", "ids"), FILTERS)
async def test_filters(agents: AgentConfigs, clock: Clock, text: str, ids: list[str]) -> None:
    for number in range(6):
        labels = {"n": str(number), "case": "b" if number else "B", "quote": '"\\x' if number == 0 else ""}
        if number % 2:
            labels["odd"] = "yes" if number < 5 else "no"
        await agents.create(P, f"a{number}", spec(model=ModelConfig(f"p{number % 2}", f"m{number % 3}"), labels=labels))
        clock.advance(seconds=1)
    found, token = [], ""
    while True:
        page, token = await agents.list(
            P, size=2, token=token, filter_text=text, order_by="create_time", show_deleted=False
        )
        found += [one.id for one in page]
        if not token:
            break
    assert found == ids


async def test_a_filter_that_is_none_is_refused(agents: AgentConfigs) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await agents.list(P, size=0, token="", filter_text="x=1", order_by="y", show_deleted=False)
    assert [one.field for one in caught.value.violations] == ["order_by", "filter"]


async def test_a_token_belongs_to_its_filter(agents: AgentConfigs) -> None:
    for one in ("a", "b", "c"):
        await agents.create(P, one, spec())
    _, token = await agents.list(P, size=1, token="", filter_text="model=small", order_by="", show_deleted=False)
    with pytest.raises(InvalidPageToken):
        await page(agents, token=token)


async def test_a_page_never_outgrows_a_message(agents: AgentConfigs) -> None:
    heavy = spec(instructions="x" * 65_536, parameters={"n": [1] * 32_000})
    for number in range(14):
        await agents.create(P, f"a{number:02}", heavy)
    pages: list[int] = []
    token = ""
    while not pages or token:
        ids, token = await page(agents, size=1000, token=token)
        pages.append(len(ids))
    assert sum(pages) == 14
    assert len(pages) > 1
    found, _ = await agents.list(P, size=1000, token="", filter_text="", order_by="", show_deleted=False)
    message = ListAgentConfigsResponse(agent_configs=[agent_to_proto(one) for one in found])
    assert 3 * 2**20 < message.ByteSize() < 8 * 2**20


async def test_a_long_page_is_read_in_chunks(agents: AgentConfigs) -> None:
    ids = [f"a{number:03}" for number in range(150)]
    for one in ids:
        await agents.create(P, one, spec())
    assert await page(agents, size=1000) == (ids, "")
    assert await page(agents, size=150) == (ids, "")
    first, token = await page(agents, size=149)
    assert first == ids[:149]
    assert await page(agents, size=149, token=token) == (ids[149:], "")
