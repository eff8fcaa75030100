"""The filter's grammar, its limits, and what it holds for."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config_svc.model.agent import AgentConfig, AgentSpec, ModelConfig
from config_svc.model.filter import Comparison, Every, Filter, Not, Some, matches, parse_filter
from servicekit.errors import Violations

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)

A = Comparison("provider", "=", "a")
B = Comparison("model", "!=", "b")
C = Comparison("template_id", "<", "c")


def parsed(text: str) -> Filter | None:
    found = Violations()
    result = parse_filter(found, text)
    found.check()
    return result


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", None),
        ("  ", None),
        ("provider=a", A),
        (' provider = "a" ', A),
        ("provider='a'", A),
        ("model.provider = a", A),
        ("(((provider=a)))", A),
        ("provider=a AND model!=b", Every((A, B))),
        ("provider=a OR model!=b AND template_id<c", Every((Some((A, B)), C))),
        ("provider=a AND model!=b OR template_id<c", Every((A, Some((B, C))))),
        ("(provider=a AND model!=b) OR template_id<c", Some((Every((A, B)), C))),
        ("NOT provider=a", Not(A)),
        ("-provider=a", Not(A)),
        ("NOT (provider=a AND model!=b)", Not(Every((A, B)))),
        ("-(provider=a OR model!=b)", Not(Some((A, B)))),
        ("provider=a\nAND\tmodel!=b", Every((A, B))),
        ("labels.team/x.y = cx-1", Comparison("labels.team/x.y", "=", "cx-1")),
        ("labels.team:*", Comparison("labels.team", ":*", "")),
        ('labels.team = ""', Comparison("labels.team", "=", "")),
        ('labels.team = "AND"', Comparison("labels.team", "=", "AND")),
        (r'labels.team >= "a\"b\\ \n"', Comparison("labels.team", ">=", 'a"b\\ n')),
        ("model = gpt-4o:latest", Comparison("model", "=", "gpt-4o:latest")),
        ("create_time >= 2026-01-31T12:00:00Z", Comparison("create_time", ">=", NOON)),
        ('update_time < "2026-01-31T12:00:00+00:00"', Comparison("update_time", "<", NOON)),
        (
            "update_time < 2026-01-31T14:00:00+02:00",
            Comparison("update_time", "<", NOON.astimezone(timezone(timedelta(hours=2)))),
        ),
    ],
)
def test_what_a_text_means(text: str, meaning: Filter | None) -> None:
    assert parsed(text) == meaning


def wrong(text: str) -> str:
    found = Violations()
    assert parse_filter(found, text) is None
    with pytest.raises(Exception, match="filter") as caught:
        found.check()
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "provider",
        "provider=",
        "=a",
        "provider=a model=b",
        "provider=a AND",
        "AND provider=a",
        "provider=a OR OR model=b",
        "NOT",
        "NOT NOT provider=a",
        "(provider=a",
        "provider=a)",
        "()",
        "provider=(a)",
        "provider=AND",
        "provider:*",
        "provider==a",
        "provider~a",
        "name=a",
        '"provider"=a',
        "labels=a",
        "labels.=a",
        "labels.Bad=a",
        "labels.a:b",
        'provider="a',
        "provider=a\0",
        'provider="\0"',
        "create_time > yesterday",
        "create_time > 2026-01-31T12:00:00",
        "create_time > 5",
        "provider=a;",
        "provider=" + "a" * 2000,
        " OR ".join(["model=b"] * 51),
        "(" * 11 + "model=b" + ")" * 11,
    ],
)
def test_what_is_no_filter(text: str) -> None:
    assert wrong(text).startswith("filter: ")


def test_limits_are_just_inside() -> None:
    assert parsed(" OR ".join(["model=b"] * 50))
    assert parsed("(" * 10 + "model=b" + ")" * 10)


AGENT = AgentConfig(
    "p", "id", "uid", AgentSpec("", "t", model=ModelConfig("pr", "mo"), labels={"a": "1", "e": ""}), 1, NOON, NOON
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("template_id=t AND provider=pr AND model=mo", True),
        ("provider=p", False),
        ("provider>p AND provider<q", True),
        ("labels.a=1", True),
        ("labels.a!=1", False),
        ("labels.b!=1", False),
        ("NOT labels.b=1", True),
        ("labels.a:* AND labels.e:* AND NOT labels.b:*", True),
        ('labels.e=""', True),
        ("create_time=2026-01-31T12:00:00Z", True),
        ("create_time<2026-01-31T12:00:00.000001Z AND NOT create_time<2026-01-31T13:00:00+01:00", True),
        ("labels.b=1 OR labels.a=1", True),
    ],
)
def test_what_a_filter_holds_for(text: str, holds: bool) -> None:
    wanted = parsed(text)
    assert wanted is not None
    assert matches(AGENT, wanted) is holds


@settings(deadline=None)
@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    parse_filter(Violations(), text)


WORDS = ["provider", "labels.a", "create_time", "=", "!=", ":*", "AND", "OR", "NOT", "-", "(", ")", "x", "'y'", " "]


@settings(deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join))
def test_no_sequence_of_words_breaks_the_parser(text: str) -> None:
    found = Violations()
    wanted = parse_filter(found, text)
    if wanted is not None:
        matches(AGENT, wanted)
