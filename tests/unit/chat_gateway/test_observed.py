"""Each model call is measured and traced; what was said only goes along where that is asked for."""

import json

import pytest
from prometheus_client import CollectorRegistry

from chat_gateway.model.provider_errors import ProviderUnavailable
from chat_gateway.model.turn import FinishReason, Message, OnDelta, Sampling, Usage
from chat_gateway.providers.observed import MAX_MODELS, ModelMetrics, ObservedProvider
from chat_gateway.providers.provider import ModelAnswer, ModelCall
from contract.enums import Role
from servicekit import traces
from servicekit.errors import StartupError
from tests.servers.otlp_receiver import OtlpReceiver, ReceivedSpan

CALL = ModelCall("large", (Message(Role.USER, "hush"),), Sampling(temperature=0.5, stop=("END",)))
LABELS = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "fake", "gen_ai_request_model": "large"}


class Fake:
    name = "fake"

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def complete(self, call: ModelCall, on_delta: OnDelta | None) -> ModelAnswer:
        if self._error is not None:
            raise self._error
        return ModelAnswer(Message(Role.ASSISTANT, "whisper"), FinishReason.STOP, Usage(7, 3), "large-1")


def test_calls_and_tokens_are_measured_by_provider_model_and_outcome() -> None:
    registry = CollectorRegistry()
    metrics = ModelMetrics(registry)
    metrics.observe("fake", "large", 0.2, "", Usage(7, 3))
    metrics.observe("fake", "large", 0.2, "provider_unavailable", None)
    duration = "gen_ai_client_operation_duration_seconds_count"
    assert registry.get_sample_value(duration, LABELS | {"error_type": ""}) == 1
    assert registry.get_sample_value(duration, LABELS | {"error_type": "provider_unavailable"}) == 1
    usage = "gen_ai_client_token_usage_sum"
    assert registry.get_sample_value(usage, LABELS | {"gen_ai_token_type": "input"}) == 7
    assert registry.get_sample_value(usage, LABELS | {"gen_ai_token_type": "output"}) == 3


def test_models_beyond_the_bound_share_one_label() -> None:
    registry = CollectorRegistry()
    metrics = ModelMetrics(registry)
    for number in range(MAX_MODELS + 20):
        metrics.observe("fake", f"model-{number}", 0.1, "", None)
    labels = {
        sample.labels["gen_ai_request_model"]
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "gen_ai_client_operation_duration_seconds_count"
    }
    assert len(labels) == MAX_MODELS + 1
    assert "other" in labels


async def test_a_failed_call_is_measured_and_its_error_passes() -> None:
    registry = CollectorRegistry()
    provider = ObservedProvider(Fake(ProviderUnavailable("fake", "is gone")), ModelMetrics(registry))
    with pytest.raises(ProviderUnavailable):
        await provider.complete(CALL, None)
    labels = LABELS | {"error_type": "provider_unavailable"}
    assert registry.get_sample_value("gen_ai_client_operation_duration_seconds_count", labels) == 1


@pytest.mark.parametrize("content", [False, True])
async def test_a_span_carries_what_was_said_only_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, content: bool
) -> None:
    with OtlpReceiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        with traces.exporting("test"):
            await ObservedProvider(Fake(), ModelMetrics(CollectorRegistry()), content=content).complete(CALL, None)
        [span] = receiver.wait_for(bool)
    assert span.name == "chat large"
    assert span.attributes["gen_ai.request.temperature"] == 0.5
    assert span.attributes.get("gen_ai.request.stop_sequences") == (["END"] if content else None)
    assert span.attributes["gen_ai.usage.input_tokens"] == 7
    assert ("hush" in said(span), "whisper" in said(span)) == (content, content)


def test_without_an_endpoint_nothing_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in traces.ENDPOINT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with traces.exporting("test"):
        assert not traces.on()
        assert traces.span("x") is traces.NO_SPAN
        assert traces.outgoing() == ()
        assert traces.ids() is None


def test_an_endpoint_without_the_extra_is_a_named_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    with pytest.raises(StartupError, match="extra `traces`"), traces.exporting("test", endpoint):
        pass


def said(span: ReceivedSpan) -> str:
    return json.dumps(span.attributes)
