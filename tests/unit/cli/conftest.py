import threading
from collections.abc import Iterator

import pytest

from parley_cli.__main__ import main
from tests.unit.cli.api_server import Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as server:
        monkeypatch.setenv("PARLEY_URL", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["parley", *arguments])
        monkeypatch.setenv("COLUMNS", "40")  # of a terminal that there is not
        try:
            main()
            code: int | str | None = 0
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return (1, out, err + code) if isinstance(code, str) else (code or 0, out, err)

    return run
