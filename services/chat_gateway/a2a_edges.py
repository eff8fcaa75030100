"""The A2A bindings, loaded on the first call of either."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import structlog

from access.rules import MethodRule
from chat_gateway.a2a.calls import SCOPES
from chat_gateway.background import BackgroundTurns
from chat_gateway.clients.push_client import PushConfigClient
from chat_gateway.clients.stubs import CONFIG_SVC, SESSION_SVC, Stubs
from chat_gateway.finishing import FinishingTurns
from chat_gateway.grpc_edge.a2a.lazy import SERVICE
from chat_gateway.http_edge.dependencies import HttpSettings
from chat_gateway.http_edge.wire.auth import Authorizer
from chat_gateway.http_edge.wire.context import RequestContext
from chat_gateway.http_edge.wire.errors import RouteNotFound
from chat_gateway.http_edge.wire.refusal import refuse
from chat_gateway.metrics import PushMetrics
from chat_gateway.model.background import TurnOfUser
from chat_gateway.ports import Journals
from chat_gateway.tools.secrets import OPERATOR, SecretFiles, SecretUnavailable
from servicekit.channels import Peer
from servicekit.egress import EgressRules
from servicekit.egress_http import GuardedClient

if TYPE_CHECKING:
    from chat_gateway.a2a.methods import Methods
    from chat_gateway.a2a.operations import A2AOperations
    from chat_gateway.a2a.push import TaskPush
    from chat_gateway.a2a.push_sender import PushSender
    from chat_gateway.http_edge.a2a.handler import A2AHandler

A2A_RULES: Final = {f"/{SERVICE}/{name}": MethodRule(scope) for name, scope in SCOPES.items()}
"""The access rules of the gRPC binding, whose third-party proto can't have options for them."""


PUSH_SECRET: Final = "a2a-push"
"""The operator's secret that the keys of push notifications are derived from, where one is given."""

log = structlog.get_logger("chat_gateway.a2a")


@dataclass(frozen=True)
class PushSettings:
    """How push notifications are sent. `own_secret` is the installation's, or empty; times in seconds."""

    own_secret: bytes
    secrets_dir: str
    egress_allow: tuple[str, ...]
    connect_timeout: float
    metrics: PushMetrics

    def secret(self) -> bytes:
        """Returns what keys are derived from: what the operator gave for it, else the installation's own."""
        try:
            return SecretFiles(self.secrets_dir).read(OPERATOR, PUSH_SECRET).encode()
        except SecretUnavailable:
            return self.own_secret


@dataclass(frozen=True)
class A2AEdges:
    """The A2A bindings over HTTP and gRPC. `guarded`: calls need credentials."""

    stubs: Stubs
    turns: FinishingTurns
    background: BackgroundTurns
    journals: Journals
    http_url: str
    grpc_url: str
    timeout: float
    guarded: bool
    push: PushSettings

    @cached_property
    def _parts(self) -> "tuple[Methods, A2AOperations, TaskPush, PushSender]":
        from chat_gateway.a2a.card import A2AAddresses, AgentCards
        from chat_gateway.a2a.methods import Methods
        from chat_gateway.a2a.operations import A2AOperations
        from chat_gateway.a2a.push import PushOperations, TaskPush
        from chat_gateway.a2a.push_configs import PushConfigs
        from chat_gateway.a2a.push_keys import PushKeys
        from chat_gateway.a2a.push_sender import PushSender
        from chat_gateway.a2a.stored import StoredTasks

        stored = StoredTasks(self.stubs, Peer(SESSION_SVC, self.timeout))
        addresses = A2AAddresses(self.http_url, self.grpc_url)
        cards = AgentCards(self.stubs, Peer(CONFIG_SVC, self.timeout), addresses, guarded=self.guarded)
        keys = PushKeys(self.push.secret())
        http = GuardedClient(EgressRules(self.push.egress_allow), connect_timeout=self.push.connect_timeout)
        configs = PushConfigs(PushConfigClient(self.stubs, timeout=self.timeout), keys, http.rules)
        sender = PushSender(http, configs, keys, self.http_url, self.push.metrics)
        push = TaskPush(configs, sender)
        operations = A2AOperations(self.turns, self.background, self.journals, stored, push)
        methods = Methods(operations, PushOperations(configs, push, operations.task), cards, keys.jwks)
        return methods, operations, push, sender

    def task_ended(self, first: TurnOfUser, agent_id: str) -> None:
        """Notifies of a task whose turn has ended here; returns at once and raises nothing."""
        from chat_gateway.a2a.calls import A2ACall
        from chat_gateway.a2a.ids import task_id

        try:
            _, operations, push, _ = self._parts
        except ImportError as error:  # another gateway has taken the call
            log.warning("a2a_not_installed", error=str(error))
            return
        call = A2ACall(agent_id, first.project, first.user_id)
        push.notify(call, task_id(first.turn_id, first.session_id), operations.task)

    async def close(self) -> None:
        """Ends what is under way, once no turn runs any more."""
        if "_parts" in self.__dict__:
            await self._parts[3].close()

    def grpc_handlers(self) -> Mapping[str, Any]:
        """Returns the handlers of A2AService, by the names of their methods. Raises `ImportError` without the SDK."""
        from chat_gateway.grpc_edge.a2a.servicer import handlers

        return handlers(self._parts[0])

    def http_route(self, authorizer: Authorizer, settings: HttpSettings) -> "A2ARoute":
        """Returns what serves /a2a/."""
        return A2ARoute(self, authorizer, settings)

    def handler(self, authorizer: Authorizer, settings: HttpSettings) -> "A2AHandler":
        """Returns the loaded handler of /a2a/. Raises `ImportError` without the SDK."""
        from chat_gateway.http_edge.a2a.handler import A2AHandler

        return A2AHandler(self._parts[0], authorizer, settings)


class A2ARoute:
    """Serves /a2a/. The first request loads the SDK outside the event loop."""

    def __init__(self, edges: A2AEdges, authorizer: Authorizer, settings: HttpSettings) -> None:
        self._make = lambda: edges.handler(authorizer, settings)
        self._handler: A2AHandler | None = None

    async def __call__(self, scope: Any, context: RequestContext) -> tuple[str, int]:
        """Serves one request; returns its route and the response's status."""
        if self._handler is None:
            try:
                self._handler = await asyncio.to_thread(self._make)
            except ImportError:
                return "/a2a/", await refuse(RouteNotFound(scope["method"], scope["path"]), context)
        return await self._handler.serve(scope, context)
