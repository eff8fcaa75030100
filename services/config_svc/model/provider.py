"""Providers: the upstreams that live gateways have, and what an agent config may name of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from config_svc.model import rules
from config_svc.model.agent import ModelConfig, ModelFallback
from contract.fields import check_resource_id
from servicekit.errors import Violations

MIN_TTL = timedelta(seconds=1)
MAX_TTL = timedelta(hours=1)
DEFAULT_TTL = timedelta(seconds=60)
MAX_PROVIDERS = 256
MAX_MODELS = 1000
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Provider:
    """An upstream that serves models: these, or any where there are none."""

    name: str
    models: tuple[str, ...] = ()

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        check_resource_id(found, f"{path}.name", self.name)
        if len(self.models) > MAX_MODELS:
            found.add(f"{path}.models", f"must have at most {MAX_MODELS} entries")
        for index, model in enumerate(self.models[:MAX_MODELS]):
            rules.check_text(found, f"{path}.models[{index}]", model, maximum=200, required=True)


@dataclass(frozen=True, slots=True)
class GatewayProviders:
    """All that one gateway has, until `expire_time`."""

    gateway: str
    providers: tuple[Provider, ...]
    expire_time: datetime

    def check(self, found: Violations) -> None:
        """Reports every broken rule."""
        rules.check_uuid(found, "gateway_id", self.gateway)
        if len(self.providers) > MAX_PROVIDERS:
            found.add("providers", f"must have at most {MAX_PROVIDERS} entries")
        for index, provider in enumerate(self.providers[:MAX_PROVIDERS]):
            provider.check(found, f"providers[{index}]")
            if provider.name in (one.name for one in self.providers[:index]):
                found.add(f"providers[{index}].name", "is a duplicate")


def union(published: Iterable[GatewayProviders]) -> dict[str, Provider]:
    """Returns what all gateways together have, in order of name. One that serves any model makes it any."""
    models: dict[str, set[str] | None] = {}
    for gateway in published:
        for provider in gateway.providers:
            known = models.setdefault(provider.name, set())
            models[provider.name] = known | set(provider.models) if provider.models and known is not None else None
    return {name: Provider(name, tuple(sorted(models[name] or ()))) for name in sorted(models)}


def check_model(found: Violations, path: str, model: ModelConfig | ModelFallback, known: dict[str, Provider]) -> None:
    """Reports a provider that no gateway has, or a model that it has on none; nothing while no provider is known."""
    if not known or not model.provider:
        return
    provider = known.get(model.provider)
    if provider is None:
        found.add(f"{path}.provider", f"no gateway has {model.provider[:63]!r}; there are {_listed(known)}")
    elif provider.models and model.name and model.name not in provider.models:
        found.add(f"{path}.name", f"provider {provider.name!r} has no {model.name[:200]!r}: {_listed(provider.models)}")


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
