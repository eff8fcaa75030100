"""The environment of session_svc."""

from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from access.settings import AccessSettings
from servicekit.settings import Bytes, GrpcTarget, Port, Seconds, variables_after
from session_svc.model.limits import JournalBounds, PickupBounds
from session_svc.model.session import SessionBounds, WhenFull


class SessionSettings(AccessSettings):
    """Settings of one session_svc process, from `PARLEY_SESSION_…`. See docs/durability.md for those of Redis."""

    model_config = SettingsConfigDict(alias_generator=variables_after("PARLEY_SESSION_"))

    grpc_port: Port = Field(default=50053, description="Port of the gRPC API; 0: any free one.")
    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="Redis: one server (`redis://host:6379/0`), a primary that Sentinels watch "
        "(`redis+sentinel://host,host/primary-name`) or a cluster (`redis+cluster://host,host`); `rediss…` is the "
        "same with TLS. See [durability.md](durability.md).",
    )
    config_target: GrpcTarget = Field(default="127.0.0.1:50052", description="gRPC address of config_svc.")
    lease: Seconds = Field(default=15.0, ge=0.2, le=600, description="How long a turn lease lasts unless renewed.")
    claim: Seconds = Field(
        default=2.0,
        ge=0.05,
        le=60,
        description="How long the first waiter of a session has to take its turn before the next one may.",
    )
    queue_per_session: int = Field(default=32, ge=1, le=1000, description="Turns that may wait for one session.")
    queue_per_limit: int = Field(
        default=256, ge=0, le=10_000, description="Turns that may wait for a place in one limit on concurrent turns."
    )
    window_bytes: Bytes = Field(
        default=2 * 1024 * 1024, ge=1024, le=6 * 1024 * 1024, description="The largest window that BeginTurn returns."
    )
    turns_per_session: int = Field(default=10_000, ge=1, le=1_000_000, description="Turns that a session may hold.")
    part_bytes_per_session: Bytes = Field(
        default=256 * 1024 * 1024,
        ge=1024 * 1024,
        le=16 * 1024 * 1024 * 1024,
        description="Bytes of large images, sounds and files that a session may keep, each counted once.",
    )
    max_message_bytes: Bytes = Field(
        default=24 * 1024 * 1024,
        ge=8 * 1024 * 1024,
        le=96 * 1024 * 1024,
        description="The largest gRPC message that is taken: at least `PARLEY_GATEWAY_MAX_PARTS_BYTES` and 2 MiB.",
    )
    when_full: Literal["drop_oldest", "refuse"] = Field(
        default="drop_oldest",
        description="What happens to a turn beyond them: the oldest make room, or it is refused.",
    )
    replays_per_session: int = Field(
        default=1000, ge=1, le=100_000, description="Request ids that are remembered for each session."
    )
    compress_turns: bool = Field(
        default=True,
        description="Whether turns are stored compressed. Compressed or not, every turn is read; releases before "
        "compression read only turns without, so keep it off while one of them runs "
        "([operations/upgrade.md](operations/upgrade.md)).",
    )
    journal_keep: Seconds = Field(
        default=300.0, ge=1, le=3600, description="How long the journal of a turn is kept behind the turn's end."
    )
    journal_bytes: Bytes = Field(
        default=4 * 1024 * 1024,
        ge=64 * 1024,
        le=64 * 1024 * 1024,
        description="The most that the journals of one session may have; those of ended turns make room first.",
    )
    pickup_wait: Seconds = Field(
        default=60.0,
        ge=1,
        le=600,
        description="How long a session waits, once the gateway of a turn with a journal is lost, for another one to "
        "take the turn over, before others may begin; a turn that interrupts need not wait.",
    )
    pickup_attempts: int = Field(
        default=3, ge=1, le=100, description="Gateways that one turn may lose before it is given up."
    )
    queued_turns_per_project: int = Field(
        default=1000, ge=0, le=100_000, description="Background turns of a project that may wait for a gateway."
    )
    queued_turn_wait: Seconds = Field(
        default=3600.0, ge=1, le=86_400, description="How long a background turn may wait for a gateway."
    )
    wait_replicas: int = Field(
        default=0,
        ge=0,
        le=10,
        description="Replicas of Redis that must have a turn before it is acknowledged (`WAIT`). With fewer, "
        "CommitTurn is UNAVAILABLE with the turn stored in the primary, and is resolved by repeating it.",
    )
    wait_timeout: Seconds = Field(default=1.0, gt=0, le=1.5, description="How long those replicas are waited for.")

    def limits(self) -> SessionBounds:
        """Returns the bounds of sessions and turns."""
        return SessionBounds(
            lease_ms=int(self.lease * 1000),
            claim_ms=int(self.claim * 1000),
            queue_per_session=self.queue_per_session,
            queue_per_limit=self.queue_per_limit,
            window_bytes=self.window_bytes,
            turns_per_session=self.turns_per_session,
            when_full=WhenFull(self.when_full),
            part_bytes=self.part_bytes_per_session,
            replays_per_session=self.replays_per_session,
            journal=JournalBounds(keep_ms=int(self.journal_keep * 1000), max_bytes=self.journal_bytes),
            pickup=PickupBounds(
                wait_ms=int(self.pickup_wait * 1000),
                queue_ms=int(self.queued_turn_wait * 1000),
                max_lost=self.pickup_attempts,
                queued=self.queued_turns_per_project,
            ),
        )
