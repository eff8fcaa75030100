"""HTTP metrics, named after OpenTelemetry's `http.server.request.duration`."""

from weakref import WeakKeyDictionary

from prometheus_client import CollectorRegistry, Histogram

from servicekit.metrics import DURATION_BUCKETS

_HISTOGRAMS: WeakKeyDictionary[CollectorRegistry, Histogram] = WeakKeyDictionary()


class RequestDurations:
    """Observes how long requests took, streams until their end, by route, method and class of status (`2xx`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        histogram = _HISTOGRAMS.get(registry)
        if histogram is None:
            histogram = _HISTOGRAMS[registry] = Histogram(
                "http_server_request_duration_seconds",
                "Duration of HTTP requests, streams until their end.",
                ["http_route", "http_request_method", "http_response_status_class"],
                buckets=DURATION_BUCKETS,
                registry=registry,
            )
        self._histogram = histogram
        self._children: dict[tuple[str, str, int], Histogram] = {}

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Records one request. `route` is the template, never the path that was asked for."""
        key = (route, method, status // 100)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._histogram.labels(route, method, f"{status // 100}xx")
        child.observe(seconds)
