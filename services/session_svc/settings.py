"""The environment of session_svc."""

from typing import Annotated, Literal

from msgspec import Meta

from access.settings import AccessSettings
from servicekit.settings import Port
from session_svc.model.session import Limits, WhenFull


class SessionSettings(AccessSettings):
    """Settings from `PARLEY_SESSION_…`. Durations are in seconds.

    `redis_url` names one server (`redis://host:6379/0`), a primary that Sentinels watch
    (`redis+sentinel://host,host/primary-name`) or a cluster (`redis+cluster://host,host`); `rediss…` is the same with
    TLS. See `redis_url.parse_redis_url`.

    What a crash of Redis can lose is its own setting: `appendfsync everysec` up to a second of acknowledged turns,
    `always` none while its disk holds. Neither covers the loss of the machine, nor a failover: with `wait_replicas` n a
    turn is acknowledged only after n replicas have it (`WAIT`); fewer within `wait_timeout` is UNAVAILABLE, with the
    turn stored in the primary and resolved by repeating CommitTurn. See docs/durability.md.

    `compress_turns` is about what is written: turns of both kinds are always read. Releases before it read only what
    is not compressed, so it is off while one of them still runs. See docs/operations/upgrade.md.
    """

    prefix = "PARLEY_SESSION_"

    grpc_port: Port = 50053
    redis_url: str = "redis://127.0.0.1:6379/0"
    config_target: str = "127.0.0.1:50052"
    lease: Annotated[float, Meta(ge=0.2, le=600)] = 15.0
    claim: Annotated[float, Meta(ge=0.05, le=60)] = 2.0
    queue_per_session: Annotated[int, Meta(ge=1, le=1000)] = 32
    queue_per_limit: Annotated[int, Meta(ge=0, le=10_000)] = 256
    window_bytes: Annotated[int, Meta(ge=1024, le=6 * 1024 * 1024)] = 2 * 1024 * 1024
    turns_per_session: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    when_full: Literal["drop_oldest", "refuse"] = "drop_oldest"
    replays_per_session: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    compress_turns: bool = True
    wait_replicas: Annotated[int, Meta(ge=0, le=10)] = 0
    wait_timeout: Annotated[float, Meta(gt=0, le=1.5)] = 1.0

    def limits(self) -> Limits:
        """Returns the bounds of sessions and turns."""
        return Limits(
            lease_ms=int(self.lease * 1000),
            claim_ms=int(self.claim * 1000),
            queue_per_session=self.queue_per_session,
            queue_per_limit=self.queue_per_limit,
            window_bytes=self.window_bytes,
            turns_per_session=self.turns_per_session,
            when_full=WhenFull(self.when_full),
            replays_per_session=self.replays_per_session,
        )
