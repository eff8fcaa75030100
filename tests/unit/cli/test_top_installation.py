"""What `parley top` shows of the whole installation."""

import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from rich.console import Console

from parley_cli.top.installation import (
    Installation,
    State,
    bars,
    errors_by_code,
    read_installation,
    turns_a_second,
)
from parley_cli.top.screen import render


def figures(replica: str, *samples: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {"replica": replica, "ready": True, "parts": {"sessions": "ok"}, "samples": list(samples)} | changed


def sample(time: str, turns: int, **errors: int) -> dict[str, Any]:
    return {"time": f"2026-05-04T{time}Z", "turns": turns, "errors": errors}


def gateway(address: str, found: dict[str, Any] | None, problem: str | None = None) -> dict[str, Any]:
    return {"address": address, "problem": problem, "figures": found}


def service(name: str, address: str, state: str, latency_ms: float | None) -> dict[str, Any]:
    return {"service": name, "address": address, "state": state, "latency_ms": latency_ms}


def read(answer: Callable[[str], httpx.Response], *addresses: str) -> Installation:
    with httpx.Client(transport=httpx.MockTransport(lambda request: answer(request.url.host))) as client:
        return read_installation(client, [f"http://{address}" for address in addresses])


def test_samples_of_all_gateways_are_added_up_by_minute() -> None:
    first = figures("a", sample("10:00:05", 30), sample("10:00:15", 30))
    second = figures("b", sample("10:00:07", 60), sample("10:01:07", 0))
    assert turns_a_second([first, second]) == [2.0, 0.0]
    assert bars([2.0, 0.0, 1.0]) == "█▁▅"
    assert bars([]) == ""


def test_failed_turns_of_all_gateways_are_added_up_by_code() -> None:
    first = figures("a", sample("10:00:05", 9, session_busy=2), sample("10:00:15", 9, session_busy=1))
    second = figures("b", sample("10:00:05", 9, provider_unavailable=4))
    assert list(errors_by_code([first, second]).items()) == [("provider_unavailable", 4), ("session_busy", 3)]


def test_gateways_that_know_only_themselves_are_all_asked() -> None:
    services = [service("config_svc", "10.0.0.1:50052", "serving", 1.5)]

    def answer(host: str) -> httpx.Response:
        own = gateway(f"{host}/1", figures(f"{host}/1", sample("10:00:05", 60)))
        return httpx.Response(200, json={"data": [own], "services": services})

    found = read(answer, "a", "b")
    assert found.rates == [2.0]
    assert found.states == [
        State("gateway", "a/1", "ready", good=True),
        State("config_svc", "10.0.0.1:50052", "serving", good=True, latency_ms=1.5),
        State("gateway", "b/1", "ready", good=True),
    ]


def test_a_gateway_that_knows_all_is_asked_alone() -> None:
    asked = []

    def answer(host: str) -> httpx.Response:
        asked.append(host)
        data = [
            gateway("http://a", figures("a/1", ready=False, parts={"sessions": "unreachable", "agents": "ok"})),
            gateway("http://b", None, "is unreachable"),
        ]
        services = [service("session_svc", "s:1", "not_serving", None)]
        return httpx.Response(200, json={"data": data, "services": services})

    found = read(answer, "a", "b")
    assert asked == ["a"]
    assert found.states == [
        State("gateway", "http://a", "not ready, sessions: unreachable", good=False),
        State("gateway", "http://b", "is unreachable", good=False),
        State("session_svc", "s:1", "not serving", good=False),
    ]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(403, json={}),
        httpx.Response(200, text="no JSON"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"data": [{"address": "a"}]}),
    ],
    ids=["refused", "text", "list", "incomplete"],
)
def test_a_gateway_that_reports_nothing_is_passed_over(answer: httpx.Response) -> None:
    assert read(lambda host: answer, "a") == Installation([], {}, [])


def test_gateways_of_the_release_before_report_no_services() -> None:
    found = read(lambda host: httpx.Response(200, json={"data": [gateway("a", figures("a/1"))]}), "a")
    assert [one.address for one in found.states] == ["a"]


def test_the_screen_shows_the_hour_and_the_state_of_every_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown = picture(
        Installation(
            [1.0, 4.0],
            {"session_busy": 3},
            [
                State("config_svc", "10.0.0.1:50052", "unreachable\x1b[2J", good=False),
                State("gateway", "http://a", "ready", good=True),
                State("session_svc", "10.0.0.2:50053", "serving", good=True, latency_ms=2.25),
            ],
        )
    )
    lines = [line.split() for line in shown.splitlines()]
    assert "highest 4.0/s" in shown
    assert ["failed", "session_busy", "3"] in lines
    assert ["http://a", "gateway", "ready"] in lines
    assert ["10.0.0.2:50053", "session_svc", "2.2", "ms", "serving"] in lines
    assert "unreachable\\u001b[2J" in shown
    assert "\x1b[2J" not in shown
    assert "health check" not in picture(Installation())


def picture(installation: Installation) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(render([], installation))
    return captured.get()
