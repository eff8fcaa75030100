"""The `parley` command as a process of its own, forked from one that has imported what it is made of."""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from tests.servers.prefork import prefork_server


def run(
    arguments: tuple[str, ...], env: Mapping[str, str], directory: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `parley` to its end, not on a terminal; raises subprocess.TimeoutExpired, and has killed it."""
    with tempfile.TemporaryDirectory(prefix="parley-") as folder:
        out, err = Path(folder, "stdout"), Path(folder, "stderr")
        streams = (Path(os.devnull), out, err)
        with closing(prefork_server("parley_cli").fork(env, directory, streams, arguments=arguments)) as forked:
            code = forked.wait(timeout)
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())
