"""Every oddity of every kind of provider, over a real connection.

A kind has its rows in a file beside this one, and its provider's settings here.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from chat_gateway.model.turn import Delta, Tool
from chat_gateway.providers.http_client import open_client
from chat_gateway.providers.http_provider import HttpProvider, ProviderBounds
from chat_gateway.providers.kinds import make_provider
from chat_gateway.providers.provider import ModelAnswer
from chat_gateway.providers.settings import ProviderSettings
from servicekit.errors import ServiceError
from servicekit.rpc_status import to_status
from tests.unit.chat_gateway.raw_provider import CALL
from tests.unit.chat_gateway.zoo import (
    anthropic_rows,
    gemini_rows,
    media_rows,
    more_rows,
    openai_piece_rows,
    openai_rows,
)
from tests.unit.chat_gateway.zoo.row import Answered, Fails, Row

KINDS: dict[str, list[Row]] = {
    "openai": openai_rows.ROWS + openai_piece_rows.ROWS + media_rows.OPENAI + more_rows.OPENAI,
    "anthropic": anthropic_rows.ROWS,
    "gemini": gemini_rows.ROWS + media_rows.GEMINI + more_rows.GEMINI,
}
BOUNDS = ProviderBounds(connect=10, first_token=30, between_tokens=30, answer=30, usage_grace=0.05)
RESET = struct.pack("ii", 1, 0)


async def answer_with(row: Row, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    with suppress(ConnectionError):
        writer.write(row.wire())
        await writer.drain()
        if row.cut:
            await asyncio.sleep(0.1)  # what came before has been read
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        else:
            await reader.read(1)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def ask(provider: HttpProvider, row: Row) -> tuple[ModelAnswer, list[Delta]]:
    deltas: list[Delta] = []

    async def note(delta: Delta) -> None:
        deltas.append(delta)

    call = replace(CALL, tools=tuple(map(Tool, row.tools)))
    return await provider.complete(call, note if row.stream else None), deltas


async def run(kind: str, row: Row) -> tuple[ModelAnswer, list[Delta]]:
    serving: list[asyncio.Task[None]] = []

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.create_task(answer_with(row, reader, writer)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    settings = ProviderSettings(kind=kind, base_url=url, api_key_env="ZOO_KEY", **row.settings)  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(60), open_client(10) as session:
            return await ask(make_provider("local", settings, BOUNDS, session), row)
    finally:
        server.close()
        await asyncio.gather(*serving)


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        pytest.param(kind, row, id=f"{kind}: {row.name}{' (streamed)' if row.stream else ''}")
        for kind, rows in KINDS.items()
        for row in rows
    ],
)
async def test_an_oddity(kind: str, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_KEY", "key-1")
    if isinstance(row.right, Fails):
        with pytest.raises(row.right.error) as caught:
            await run(kind, row)
        check_failure(row.right, caught.value)
    else:
        answer, deltas = await run(kind, row)
        check_answer(row.right, answer)
        if row.stream:
            check_deltas(answer, deltas)


def check_failure(right: Fails, error: ServiceError) -> None:
    assert type(error) is right.error
    assert right.says in error.message
    assert right.hides not in error.message
    assert right.metadata.items() <= error.metadata.items()
    assert right.also(error)
    assert to_status(error).message, "it goes over gRPC, whatever numbers the provider said"


def check_answer(right: Answered, answer: ModelAnswer) -> None:
    message = answer.message
    seen: dict[str, Any] = {
        "content": message.content,
        "finish_reason": answer.finish_reason,
        "reasoning": message.reasoning,
        "usage": answer.usage,
    }
    assert seen == seen | {name: value for name in seen if (value := getattr(right, name)) is not None}
    assert tuple((call.name, call.arguments) for call in message.tool_calls) == right.calls
    ids = [call.id for call in message.tool_calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    assert right.also(answer)


def check_deltas(answer: ModelAnswer, deltas: list[Delta]) -> None:
    """What the caller was given piece by piece is what is stored."""
    message = answer.message
    assert "".join(delta.content for delta in deltas) == message.content
    assert "".join(delta.reasoning for delta in deltas) == message.reasoning
    calls: dict[int, list[str]] = {}
    for piece in [call for delta in deltas for call in delta.tool_calls]:
        call = calls.setdefault(piece.index, ["", "", ""])
        assert not (call[1] and piece.name), "clients differ in what they make of a name in pieces"
        call[0], call[1], call[2] = call[0] or piece.id, call[1] + piece.name, call[2] + piece.arguments
    assert list(calls) == sorted(calls), "clients put calls together by their places"
    assert [calls[index] for index in sorted(calls)] == [[c.id, c.name, c.arguments] for c in message.tool_calls]
