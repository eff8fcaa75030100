"""The database port, implemented on PostgreSQL and in memory for tests. Every method may raise
`servicekit.errors.Unavailable` if the database is unavailable or does not answer in time. Times are the caller's; the
store has no clock.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol, TypeVar

from config_svc.model.agent import AgentConfig, Revision
from config_svc.model.change import Change, ChangeType, FeedPosition
from config_svc.model.provider import GatewayProviders
from config_svc.model.query import After, AgentQuery
from config_svc.model.spec_json import EncodedAgent
from config_svc.model.template import Template
from config_svc.ports.access import AccessStore, AccessTransaction
from config_svc.ports.claim import Claim
from config_svc.ports.tool_servers import ToolServerStore, ToolServerTransaction

T = TypeVar("T")


class Transaction(AccessTransaction, ToolServerTransaction, Protocol):
    """One transaction. Everything that it reads for writing is locked until it ends."""

    async def claim(self, project: str, claim: Claim, *, expired_before: datetime) -> Claim | None:
        """Takes the request id; returns the claim of an earlier request that holds it, made since `expired_before`.

        Waits for a concurrent transaction with the same request id.
        """
        ...

    async def live(self, project: str, agent_id: str) -> AgentConfig | None:
        """Reads and locks the agent config that is not deleted."""
        ...

    async def by_uid(self, project: str, uid: str) -> AgentConfig | None:
        """Reads and locks an agent config, deleted or not."""
        ...

    async def newest_deleted(self, project: str, agent_id: str, now: datetime) -> AgentConfig | None:
        """Reads the one of this id that was deleted last and is not to be purged yet at `now`."""
        ...

    async def revision(self, uid: str, number: int) -> Revision | None:
        """Reads a revision."""
        ...

    async def template(self, template_id: str, version: str) -> Template | None:
        """Reads a template version, the newest when `version` is empty."""
        ...

    async def published_providers(self, now: datetime) -> Sequence[GatewayProviders]:
        """Reads what gateways have declared that has not expired at `now`."""
        ...

    async def publish(self, template: Template) -> tuple[Template, bool]:
        """Stores a template version unless it exists; returns what is stored then, and whether it is new."""
        ...

    async def purge(self, now: datetime, limit: int) -> Sequence[AgentConfig]:
        """Removes at most `limit` deleted agent configs whose purge time has come; returns them."""
        ...

    async def insert(self, encoded: EncodedAgent) -> None:
        """Stores a new agent config. Raises AgentAlreadyExists when its id is taken by one that is not deleted."""
        ...

    async def replace(self, encoded: EncodedAgent) -> None:
        """Stores the new state of the agent config with this uid. Raises AgentAlreadyExists as `insert` does."""
        ...

    async def add_revision(self, encoded: EncodedAgent, revision: Revision) -> None:
        """Stores a revision, whose content is that of the agent config now."""
        ...

    async def announce(self, change: ChangeType, encoded: EncodedAgent, time: datetime) -> None:
        """Puts a change into the feed. It must be the last write: other transactions wait here for this one to end."""
        ...

    async def announce_all(self, change: ChangeType, agents: Sequence[EncodedAgent], time: datetime) -> None:
        """Puts one change after the other into the feed, as `announce` does, at the cost of one round trip."""
        ...


class Tail(Protocol):
    """A connection of its own that follows the feed, untouched by how busy the others are."""

    async def position(self) -> FeedPosition:
        """Reads the feed's position."""
        ...

    async def changes(self, after: int, limit: int) -> Sequence[Change]:
        """Reads the oldest changes with a sequence over `after`, in order."""
        ...

    async def missing_projects(self, uids: Sequence[str]) -> Sequence[str]:
        """Returns those of the uids that no project has, not even one in deletion."""
        ...

    async def wait(self, timeout: float) -> None:
        """Returns when a change may have been committed, at the latest after `timeout` seconds."""
        ...


class Store(AccessStore, ToolServerStore, Protocol):
    """Agent configs, their revisions, templates and the feed of changes; tool servers; and who may touch them."""

    async def agent(
        self, project: str, agent_id: str, *, revision: int | None = None, uid: str | None = None
    ) -> AgentConfig:
        """Reads the agent config that is not deleted, as it is or as it was at `revision`.

        Raises AgentNotFound (also when it has another uid than `uid`) or RevisionNotFound.
        """
        ...

    async def agents(self, query: AgentQuery, after: After | None, limit: int) -> Sequence[AgentConfig]:
        """Reads one page at a cost that does not grow with how far in the list it is."""
        ...

    async def revisions(self, uid: str, before: int | None, limit: int) -> Sequence[Revision]:
        """Reads revisions with a number under `before`, newest first."""
        ...

    async def template(self, template_id: str, version: str) -> Template | None:
        """Reads a template version, the newest when `version` is empty."""
        ...

    async def templates(self, after: str, limit: int) -> Sequence[Template]:
        """Reads the newest version of each template with an id over `after`, in order of id."""
        ...

    async def publish_providers(self, published: GatewayProviders) -> None:
        """Stores what a gateway has in place of what it had; without providers, removes it."""
        ...

    async def published_providers(self, now: datetime) -> Sequence[GatewayProviders]:
        """Reads what gateways have declared that has not expired at `now`."""
        ...

    async def forget_providers(self, before: datetime) -> int:
        """Removes what expired before; returns of how many gateways."""
        ...

    async def transact(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Runs `work` in a transaction and commits it; an exception rolls it back.

        `work` is run a second time when the connection turns out to be dead before the commit began.
        """
        ...

    async def feed_position(self) -> FeedPosition:
        """Reads the feed's position."""
        ...

    async def changes(self, after: int, limit: int) -> Sequence[Change]:
        """Reads the oldest changes with a sequence over `after`, in order."""
        ...

    def tail(self) -> AbstractAsyncContextManager[Tail]:
        """Opens a connection that follows the feed."""
        ...

    async def forget_claims(self, before: datetime) -> int:
        """Removes request ids that were taken before; returns how many."""
        ...

    async def compact(self, before: datetime, keep: int) -> int:
        """Removes the oldest changes: up to the last one made before `before`, and all but `keep`. Returns how many."""
        ...
