"""What a SIGKILL of the Redis process loses of what it had acknowledged, by `appendfsync`.

With `always`: nothing. With `everysec` nothing is promised even for the process alone: while a sync of the disk is
under way, the server answers writes that it has not yet handed to the kernel, for up to two seconds. Whatever is lost
is lost from the end, all at once: what is left is what was there at one moment.
"""

import random
import threading
import time

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers.stores import Choice, RedisServer

WRITERS = 4
ROUNDS = 3
MIN_WRITES = 20
"""Of each writer: fewer say nothing."""
PADDING = b"x" * 1000


class Writer(threading.Thread):
    """Appends numbers to a list until the server dies, and knows when the last one was acknowledged."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.url = url
        self.acknowledged = [0.0]
        """When each number was; the first stands for none."""

    def run(self) -> None:
        with redis.Redis.from_url(self.url, socket_timeout=5, retry=Retry(NoBackoff(), 0)) as client:
            try:
                while True:
                    client.rpush(self.name, b"%08d" % len(self.acknowledged) + PADDING)
                    self.acknowledged.append(time.monotonic())
            except (redis.ConnectionError, redis.TimeoutError):
                return


@pytest.fixture
def own_redis(server_choice: Choice, tmp_path_factory: pytest.TempPathFactory) -> RedisServer:
    return server_choice.own_redis(tmp_path_factory.mktemp("durability"))


@pytest.mark.parametrize(("policy", "may_lose_seconds"), [("always", 0.0), ("everysec", 6.0)])
def test_a_kill_of_redis_loses_no_more_than_its_policy_says(
    own_redis: RedisServer, policy: str, may_lose_seconds: float
) -> None:
    draw = random.Random(1)
    try:
        for number in range(ROUNDS):
            own_redis.start()
            url = own_redis.database_url(0)
            with redis.Redis.from_url(url) as client:
                client.config_set("appendfsync", policy)
                client.config_set("auto-aof-rewrite-percentage", 0)
            writers = [Writer(url, f"r{number}-w{n}") for n in range(WRITERS)]
            for writer in writers:
                writer.start()
            time.sleep(draw.uniform(0.8, 1.6))
            while min(len(writer.acknowledged) for writer in writers) <= MIN_WRITES:
                assert all(writer.is_alive() for writer in writers)
                time.sleep(0.05)
            killed = time.monotonic()
            own_redis.kill()
            for writer in writers:
                writer.join(60)
            own_redis.start()
            with redis.Redis.from_url(url) as client:
                for writer in writers:
                    kept = [int(value[:8]) for value in client.lrange(writer.name, 0, -1)]
                    assert kept == list(range(1, len(kept) + 1)), "what is left has holes"
                    oldest_lost = writer.acknowledged[len(kept) + 1 :][:1] or [killed]
                    assert killed - oldest_lost[0] <= may_lose_seconds
    finally:
        own_redis.remove()
