"""The last hour of `parley top`."""

import httpx

from parley_cli.top.hour import line, read_hour, turns_a_second


def test_samples_of_all_gateways_are_added_up_by_minute() -> None:
    first = {"samples": [{"time": "2026-05-04T10:00:05Z", "turns": 30}, {"time": "2026-05-04T10:00:15Z", "turns": 30}]}
    second = {"samples": [{"time": "2026-05-04T10:00:07Z", "turns": 60}, {"time": "2026-05-04T10:01:07Z", "turns": 0}]}
    assert turns_a_second([first, second]) == [2.0, 0.0]
    assert line([2.0, 0.0, 1.0]) == "█▁▅"
    assert line([]) == ""


def test_what_is_no_gateway_has_no_hour() -> None:
    answers = {"/v1/figures": httpx.Response(403, json={})}
    transport = httpx.MockTransport(lambda request: answers[request.url.path])
    with httpx.Client(transport=transport) as client:
        assert read_hour(client, "http://x") is None
        answers["/v1/figures"] = httpx.Response(200, text="no JSON")
        assert read_hour(client, "http://x") is None
        answers["/v1/figures"] = httpx.Response(200, json={"samples": []})
        assert read_hour(client, "http://x") == {"samples": []}
