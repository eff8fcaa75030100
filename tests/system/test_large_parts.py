"""A picture of 10 MB in a session: stored once, and of a bounded cost for the turns to come."""

import base64
from collections.abc import Iterator
from typing import Any, Self
from uuid import uuid4

import grpc
import openai
import pytest
import redis

from parley.chat.v1 import chat_service_pb2 as pb
from parley.session.v1 import message_pb2
from parley_client import ParleyError
from tests.servers.mock_model import Behaviour
from tests.servers.system import System

pytestmark = pytest.mark.usefixtures("forgetful_model")

MB = 1024 * 1024


def png(letter: bytes, megabytes: int = 10) -> str:
    return f"data:image/png;base64,{base64.b64encode(letter * (megabytes * MB * 3 // 4)).decode()}"


def look(url: str, text: str = "What is it?") -> dict[str, Any]:
    image = {"type": "image_url", "image_url": {"url": url}}
    return {"role": "user", "content": [{"type": "text", "text": text}, image]}


@pytest.fixture
def client(parley_system: System) -> Iterator[openai.OpenAI]:
    base_url = f"{parley_system.http_url}/v1"
    with openai.OpenAI(base_url=base_url, api_key="none", timeout=60, max_retries=0) as opened:
        yield opened


class Traffic:
    """What Redis has taken and given, since it was last asked."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url)
        self._last = (0, 0)
        self.since()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def since(self) -> tuple[int, int]:
        said: dict[str, Any] = self._client.info("stats")
        now = (said["total_net_input_bytes"], said["total_net_output_bytes"])
        last, self._last = self._last, now
        return now[0] - last[0], now[1] - last[1]

    def keys(self, session: str) -> list[str]:
        return sorted(key.decode() for key in self._client.scan_iter(f"*{session}*:parts"))


@pytest.fixture
def traffic(parley_system: System) -> Iterator[Traffic]:
    with Traffic(parley_system.redis_url) as counted:
        yield counted


def test_the_cost_of_a_turn_does_not_grow_with_the_pictures_of_old_turns(
    parley_system: System, client: openai.OpenAI, traffic: Traffic
) -> None:
    agent = str(parley_system.create_agent(f"agent-{uuid4().hex[:8]}", memory={"max_parts": 1})["id"])
    session = f"pictures-{uuid4().hex[:8]}"
    said: list[dict[str, Any]] = []

    def turn(message: dict[str, Any], *, resend: bool = False) -> tuple[int, int]:
        said.append(message)
        answer = client.chat.completions.create(
            model=agent, messages=said if resend else [message], extra_headers={"X-Session-ID": session}
        )
        said.append({"role": "assistant", "content": answer.choices[0].message.content})
        return traffic.since()

    def pictures() -> list[str]:
        prompt = parley_system.model.prompts[-1]
        parts = [part for message in prompt if isinstance(message["content"], list) for part in message["content"]]
        return [
            part.get("text") or part["image_url"]["url"][-30:-20] for part in parts if part.get("text") != "What is it?"
        ]

    first, second, third = png(b"a"), png(b"b", 4), png(b"c", 4)
    turn(look(first[:40_022]))  # Redis learns the scripts
    written, read = turn(look(first))
    assert 10 * MB < written < 11 * MB, "it is stored once"
    assert read < MB
    for url in (second, third):
        written, read = turn(look(url))
        assert written < 5 * MB
        assert read < 11 * MB, "one picture of earlier turns is read, however many there are"
    assert [one for one in pictures() if one.startswith("[Image")] == ["[Image: shown earlier, and left out now]"] * 2
    for _ in range(2):
        written, read = turn({"role": "user", "content": "And?"})
        assert written < MB
        assert read < 5 * MB
    written, _ = turn({"role": "user", "content": "The whole transcript again."}, resend=True)
    assert written < MB, "what is resent is not stored again"
    [sent] = [one for one in pictures() if not one.startswith("[Image")]
    assert sent == third[-30:-20]
    with parley_system.client() as http:
        page = http.get(f"/v1/sessions/{session}/messages", timeout=60).json()
        assert len(page["data"]) == 2, "a page is bounded by its bytes, too"
        token = {"page_token": page["next_page_token"]}
        page = http.get(f"/v1/sessions/{session}/messages", params=token, timeout=60).json()
        assert page["data"][0]["content"][1]["image_url"]["url"] == first
    assert len(traffic.keys(session)) == 1
    with parley_system.client() as http:
        http.delete(f"/v1/sessions/{session}")
    assert traffic.keys(session) == []


def test_what_is_over_a_size_is_413_and_leaves_nothing_behind(parley_system: System, client: openai.OpenAI) -> None:
    agent = str(parley_system.create_agent(f"agent-{uuid4().hex[:8]}")["id"])
    session = f"large-{uuid4().hex[:8]}"
    url = png(b"a")
    for messages in (
        [look(url), look(png(b"b"))],
        [look(url + "A" * (12 * MB))],
        [{"role": "user", "content": "x" * MB}],
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model=agent, messages=messages, extra_headers={"X-Session-ID": session})
        assert caught.value.status_code == 413
        assert caught.value.body["code"] == "message_too_large"  # type: ignore[index]
    with parley_system.client() as http:
        assert http.get(f"/v1/sessions/{session}").status_code == 404
    assert parley_system.model.requests == []
    parley_system.model.script(Behaviour(text="Long."))
    stateless = client.chat.completions.create(
        model=agent, messages=[{"role": "user", "content": "x" * MB}], store=False
    )
    assert stateless.choices[0].finish_reason == "stop", "without a session the body alone is bounded"


def test_a_picture_of_ten_megabytes_goes_over_grpc_too(parley_system: System) -> None:
    agent = str(parley_system.create_agent(f"agent-{uuid4().hex[:8]}")["id"])
    part = message_pb2.ContentPart(image_url=message_pb2.ImageUrl(url=png(b"a")))
    message = message_pb2.Message(role=message_pb2.ROLE_USER, parts=[part])
    with parley_system.grpc_client() as client:
        stub = client.chat
        asked = pb.TurnInput(agent_id=agent, session_id=f"grpc-{uuid4().hex[:8]}", messages=[message])
        answer = stub.Complete(pb.CompleteRequest(input=asked), timeout=60)
        assert answer.outcome.turn_number == 1
        asked.messages[0].parts[0].image_url.url += "A" * (12 * MB)
        with pytest.raises(ParleyError) as caught:
            stub.Complete(pb.CompleteRequest(input=asked), timeout=60)
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
