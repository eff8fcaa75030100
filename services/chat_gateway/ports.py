"""The ports of turns: agent configs, tool servers and sessions. Adapters are in `clients`."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from chat_gateway.model.agent_config import AgentConfig
from chat_gateway.model.background import ClaimedTurn, NothingClaimed, TurnProgress
from chat_gateway.model.journal import JournalEntry, JournalEvent, UnwrittenEntries
from chat_gateway.model.stored_turn import Begun, Committed, Lease, Turn
from chat_gateway.model.tool_servers import ToolServer, ToolServerTest
from chat_gateway.model.turn import Kept, Message, TurnLimit, TurnOutcome, TurnRequest
from servicekit.errors import ServiceError


class Configs(Protocol):
    """Agent configs, as fresh as invariant 5 promises."""

    async def current(self, project: str, agent_id: str) -> AgentConfig:
        """Returns the current revision. Raises `AgentNotFound`, or `Unavailable` for an agent not known here."""
        ...

    async def at_revision(self, current: AgentConfig, revision: int) -> AgentConfig:
        """Returns a revision of the same agent. Raises `RemoteError` (REVISION_NOT_FOUND) or `Unavailable`."""
        ...

    def forget(self, project: str, agent_id: str, uid: str) -> None:
        """Drops the cached config of the agent with this uid: the next `current` reads it from config_svc."""
        ...


class KnownConfigs(Protocol):
    """The state of the cache of agent configs."""

    @property
    def watching(self) -> bool:
        """Whether changes are being pushed."""
        ...

    @property
    def silence(self) -> float:
        """Seconds since the last push or heartbeat."""
        ...

    @property
    def lag(self) -> float:
        """Seconds that the last change took to arrive."""
        ...

    def __len__(self) -> int:
        """How many there are."""
        ...


class ToolServers(Protocol):
    """The tool servers of projects, at most 5 s old while config_svc answers and 15 min old while it does not."""

    async def get(self, project: str, tool_server_id: str) -> ToolServer:
        """Returns a tool server. Raises `ToolServerNotFound`, or `Unavailable` for one that is not cached."""
        ...

    async def read(self, project: str, tool_server_id: str) -> ToolServer:
        """Reads a tool server without the cache. Raises `ToolServerNotFound`, `Unavailable`."""
        ...


class ToolServerTests(Protocol):
    """Tests tool servers."""

    async def test(self, project: str, tool_server_id: str) -> ToolServerTest:
        """Connects to a tool server and lists its tools, within a timeout. The result contains any problem. Raises
        `ToolServerNotFound`, and `Unavailable` if config_svc can't be asked.
        """
        ...


class Sessions(Protocol):
    """The turn service of session_svc. Every method is one RPC; errors are those of the contract."""

    async def begin(
        self,
        request: TurnRequest,
        config: AgentConfig,
        turn_id: str,
        digest: bytes,
        limits: tuple[TurnLimit, ...] = (),
    ) -> Begun:
        """Takes the limits and the lease and returns the window, or the stored turn of a repeated request."""
        ...

    async def history(
        self, begun: Begun, request: TurnRequest, config: AgentConfig, digest: bytes
    ) -> tuple[Turn, ...] | None:
        """Returns all turns of the session of a turn that holds its lease; None where they are too many to compare."""
        ...

    async def take_limits(self, request: TurnRequest, turn_id: str, limits: tuple[TurnLimit, ...]) -> Begun:
        """Takes the limits of a stateless turn; its lease holds places in them and nothing else."""
        ...

    async def renew(self, lease: Lease, hold: float) -> Lease:
        """Extends the lease at once and returns after `hold` seconds, sooner when the turn is interrupted.

        Raises `RemoteError` (LEASE_LOST, TURN_INTERRUPTED).
        """
        ...

    async def commit(
        self,
        lease: Lease,
        turn: Turn,
        config: AgentConfig,
        request_id: str,
        digest: bytes,
        rest: UnwrittenEntries | None = None,
    ) -> Committed:
        """Stores the turn whole, and the rest of its journal before its end. Safe to repeat with the same turn."""
        ...

    async def abort(self, lease: Lease, error: ServiceError | None = None) -> None:
        """Releases the lease and stores nothing. Safe to repeat. A journal of the turn ends with the error."""
        ...

    async def append(self, lease: Lease, first: int, entries: Sequence[JournalEntry]) -> str:
        """Adds entries to the turn's journal, and returns the id of the last; `first` counts them under this lease.

        Safe to repeat. Raises `RemoteError` (LEASE_LOST, TURN_INTERRUPTED, MESSAGE_TOO_LARGE).
        """
        ...


class Claims(Protocol):
    """Handing turns over between gateways."""

    async def claim(self, hold: float) -> ClaimedTurn | NothingClaimed:
        """Takes over a turn that no gateway runs. With `hold`, waits up to so many seconds until a claim may find one,
        and takes none; a session_svc of the previous release does not wait, and may take one.
        """
        ...

    async def hand_over(self, lease: Lease, *, queued: bool) -> None:
        """Hands the turn over to the first gateway that takes it, or queues it. Safe to repeat.

        Raises `RemoteError` (LEASE_LOST, TURN_INTERRUPTED, TURN_CANCELLED, TURN_QUEUE_FULL).
        """
        ...

    async def cancel(self, project: str, session_id: str, user_id: str, turn_id: str, timeout: float | None) -> None:
        """Cancels the turn and returns once it has ended for any reason. Raises `RemoteError` (TURN_NOT_FOUND)."""
        ...

    async def cancel_waiting(self, project: str, session_id: str, user_id: str, turn_id: str) -> None:
        """Records that what the session's newest turn waits for is no longer answered. Idempotent.

        Raises `RemoteError` (TURN_NOT_FOUND, SESSION_BUSY). A session_svc of the release before does nothing.
        """
        ...

    async def progress(self, project: str, session_id: str, user_id: str, turn_id: str) -> TurnProgress:
        """Returns the state of the turn. Raises `RemoteError` (TURN_NOT_FOUND)."""
        ...


class StoredTurns(Protocol):
    """Stored turns."""

    async def outcome(
        self, project: str, session_id: str, user_id: str, turn_id: str
    ) -> tuple[TurnOutcome, str] | None:
        """Returns the outcome of the turn and its agent's id; None if the user's session has no such turn."""
        ...


class Journals(Protocol):
    """Journals of turns, for the users of their sessions."""

    def watch(
        self,
        project: str,
        session_id: str,
        user_id: str,
        turn_id: str,
        after: str,
        *,
        present_only: bool = False,
    ) -> AsyncGenerator[JournalEvent | None, None]:
        """Yields the entries after an event (empty: all) until the turn's end, and None now and then. With
        `present_only` it ends with the current entries. Continues at another replica if one stops. Raises `RemoteError`
        (TURN_NOT_FOUND, LEASE_LOST), `Unavailable`, and `Draining` if this gateway stops: another one continues after
        the last event.
        """
        ...


class StoredParts(Protocol):
    """The images, audio and files kept beside turns."""

    async def read(self, project: str, session_id: str, wanted: Sequence[Kept]) -> Mapping[bytes, str]:
        """Returns their contents by digest, without those that the session no longer has.

        Raises `RemoteError` (SESSION_NOT_FOUND, TURN_DAMAGED).
        """
        ...


@dataclass(frozen=True, slots=True)
class StoredWindow:
    """The part of a session that a turn would see."""

    messages: tuple[Message, ...]
    message_count: int
    metadata: Mapping[str, str]
    pinned_revision: int
    expire_time: datetime | None
    part_bytes: int = 0
    user_id: str = ""


class SessionReader(Protocol):
    """Reads sessions without a lease."""

    async def window(self, request: TurnRequest, config: AgentConfig) -> StoredWindow:
        """Returns the window. Raises `RemoteError` (SESSION_NOT_FOUND), `SessionAgentMismatch` or `Unavailable`."""
        ...

    async def turns(self, request: TurnRequest) -> tuple[Turn, ...] | None:
        """Returns every turn of the session, oldest first; None where they are too many. Raises as `window`."""
        ...


class AgentDeleter(Protocol):
    """Deletes agent configs."""

    async def delete(self, project: str, agent_id: str, etag: str) -> str:
        """Deletes an agent config and returns its uid. Raises `RemoteError` (AGENT_NOT_FOUND, ETAG_MISMATCH)."""
        ...


class SessionRemover(Protocol):
    """Removes sessions by the agent that they belong to."""

    async def remove_agent(self, project: str, agent_id: str, uid: str) -> None:
        """Refuses every further turn on this uid, then removes its sessions. Safe to repeat."""
        ...
