"""What a turn with tools is in a trace: OpenTelemetry's GenAI conventions, and nothing of what was said."""

import pytest

from chat_gateway.model.tools import ToolOutcome
from servicekit import traces
from tests.doubles.chat_gateway.toolboxes import FakeToolboxes, says
from tests.servers.otlp_receiver import OtlpReceiver
from tests.unit.chat_gateway.stepping_provider import SteppingProvider, calling, text
from tests.unit.chat_gateway.tool_world import world_of
from tests.unit.chat_gateway.world import asks


async def test_each_call_is_a_span_of_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = SteppingProvider(
        calling(("c1", "read", '{"x": "planted-argument"}'), ("c2", "broken", "{}")), text("done")
    )
    boxes = FakeToolboxes({"read": says("planted-result"), "broken": says("planted-error", ToolOutcome.ERROR)})
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
        with traces.exporting("test"):
            await world_of(provider, boxes).runner.run(asks(session_id="s"))
        spans = receiver.wait_for(lambda found: any(span.name.startswith("invoke_agent") for span in found))
    named = {span.name: span for span in spans}
    turn, read, broken = (named[name] for name in ("invoke_agent support", "execute_tool read", "execute_tool broken"))
    assert read.attributes == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "read",
        "gen_ai.tool.call.id": "c1",
        "gen_ai.tool.type": "function",
        "parley.tool_server": "files",
    }
    assert broken.attributes["error.type"] == "error"
    assert {read.parent_id, broken.parent_id} == {turn.span_id}
    assert "planted" not in repr(spans)
