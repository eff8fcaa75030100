"""Puts the bindings of A2A together, with the first call of either: until then none of it is loaded."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from access.rules import MethodRule
from chat_gateway.a2a.calls import SCOPES
from chat_gateway.background import BackgroundTurns
from chat_gateway.clients.stubs import CONFIG_SVC, SESSION_SVC, Stubs
from chat_gateway.finishing import FinishingTurns
from chat_gateway.grpc_edge.a2a.lazy import SERVICE
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.wire.auth import Authorizer
from chat_gateway.http_edge.wire.context import RequestContext
from chat_gateway.http_edge.wire.errors import RouteNotFound
from chat_gateway.http_edge.wire.refusal import refuse
from chat_gateway.memory import MemoryBudget
from chat_gateway.ports import Journals
from servicekit.channels import Peer

if TYPE_CHECKING:
    from chat_gateway.a2a.methods import Methods
    from chat_gateway.http_edge.a2a.handler import A2AHandler

A2A_RULES: Final = {f"/{SERVICE}/{name}": MethodRule(scope) for name, scope in SCOPES.items()}
"""The access rules of the gRPC binding, whose proto is not ours to write them in."""


@dataclass(frozen=True)
class A2AEdges:
    """What the bindings are made of. `guarded`: calls need credentials."""

    stubs: Stubs
    turns: FinishingTurns
    background: BackgroundTurns
    journals: Journals
    memory: MemoryBudget
    http_url: str
    grpc_url: str
    timeout: float
    guarded: bool

    @cached_property
    def _methods(self) -> "Methods":
        from chat_gateway.a2a.card import A2AAddresses, AgentCards
        from chat_gateway.a2a.methods import Methods
        from chat_gateway.a2a.operations import A2AOperations
        from chat_gateway.a2a.stored import StoredTasks

        stored = StoredTasks(self.stubs, Peer(SESSION_SVC, self.timeout))
        addresses = A2AAddresses(self.http_url, self.grpc_url)
        cards = AgentCards(self.stubs, Peer(CONFIG_SVC, self.timeout), addresses, guarded=self.guarded)
        return Methods(A2AOperations(self.turns, self.background, self.journals, stored), cards)

    def grpc_handlers(self) -> Mapping[str, Any]:
        """Returns the handlers of A2AService, by the names of their methods. Raises `ImportError` without the SDK."""
        from chat_gateway.grpc_edge.a2a.servicer import handlers

        return handlers(self._methods, self.memory)

    def http_route(self, authorizer: Authorizer, settings: HttpSettings) -> "A2ARoute":
        """Returns what serves /a2a/."""
        return A2ARoute(self, authorizer, settings)

    def handler(self, authorizer: Authorizer, settings: HttpSettings) -> "A2AHandler":
        """Returns what serves /a2a/, loaded. Raises `ImportError` without the SDK."""
        from chat_gateway.http_edge.a2a.handler import A2AHandler

        return A2AHandler(self._methods, authorizer, settings)


class A2ARoute:
    """Serves /a2a/. The first request loads what it takes, beside the event loop."""

    def __init__(self, edges: A2AEdges, authorizer: Authorizer, settings: HttpSettings) -> None:
        self._make = lambda: edges.handler(authorizer, settings)
        self._handler: A2AHandler | None = None

    async def __call__(self, scope: Any, context: RequestContext) -> tuple[str, int]:
        """Serves one request; returns its route and the status that it was answered with."""
        if self._handler is None:
            try:
                self._handler = await asyncio.to_thread(self._make)
            except ImportError:
                return "/a2a/", await refuse(RouteNotFound(scope["method"], scope["path"]), context)
        return await self._handler.serve(scope, context)
