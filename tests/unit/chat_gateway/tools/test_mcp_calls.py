"""How much Python the gateway runs to list and call a tool of an MCP server in a turn: counted, as time varies."""

from tests.doubles.python_calls import PythonCalls
from tests.servers.mcp_server import McpServerUnderTest
from tests.unit.chat_gateway.tools.opened import opened_room

MAX_CALLS = 288
"""Some 5 % more than there are, with a server of ten tools."""
WARM, CALLS = 3, 10


async def test_a_call_in_plain_json_calls_no_more_python_than_it_did() -> None:
    counts = list[PythonCalls]()
    with McpServerUnderTest(modern=True, json_response=True) as server:
        async with opened_room() as room:
            room.put("calc", server.url)
            for number in range(CALLS):
                counted = PythonCalls()
                with counted.counting():
                    result = await room.call("calc", "add", f'{{"a": {number}, "b": 1}}')
                assert result.text == str(number + 1)
                counts.append(counted)
    least = min(counts[WARM:], key=lambda counted: counted.number)
    assert least.number <= MAX_CALLS, (least.number, least.called.most_common())
