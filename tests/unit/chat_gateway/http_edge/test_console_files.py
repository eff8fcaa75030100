"""The console's files: small, vendored as they are pinned, and without anything that its policy would refuse."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import NOT_RUN

ROOT = Path(__file__).parents[4]
STATIC = ROOT / "services/chat_gateway/http_edge/console/static"
TYPES = STATIC.parent / "types.d.ts"  # the page does not load it
DOM = ("dom", "dom.iterable", "dom.asynciterable")
MAX_BYTES = 200 * 1000
MAX_FIRST_BYTES = 60 * 1000
MAX_LINES = 200
OWN = [path for path in STATIC.iterdir() if path.is_file()]


def test_all_of_it_is_small() -> None:
    assert sum(path.stat().st_size for path in STATIC.rglob("*") if path.is_file()) < MAX_BYTES
    assert {path.name: lines for path in OWN if (lines := path.read_text().count("\n")) > MAX_LINES} == {}


@pytest.mark.slow
def test_libraries_are_the_ones_that_are_pinned_and_say_their_licence() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / ".ci/vendor_console.py", "--check"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    licences = (STATIC.parent / "LICENSES.txt").read_text()
    assert {name for name in ("preact", "htm", "uplot") if f"{name} " not in licences} == set()


def test_nothing_is_asked_of_others_kept_or_made_into_markup() -> None:
    forbidden = (
        r"localStorage|innerHTML|outerHTML|insertAdjacentHTML|dangerouslySet|document\.cookie|\beval\(|new Function"
    )
    for path in OWN:
        text = path.read_text()
        assert re.findall(forbidden, text) == [], path.name
        assert re.findall(r"(?:src|href)=[\"']?https?:", text) == [], path.name
    index = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", index) == []
    names = set(re.findall(r"[\"']/console/([^\"']+)", index))
    for path in OWN:
        if path.suffix == ".js":
            names |= set(re.findall(r"(?:from |import\()'\./([^']+)'", path.read_text()))
    assert {name for name in names if not (STATIC / name).is_file()} == set()


def test_the_first_paint_waits_for_two_small_files_and_the_program_for_no_chain_of_imports() -> None:
    """The text of the page itself is painted, and whatever its program imports is asked for together with it."""
    index = (STATIC / "index.html").read_text()
    blocking = re.findall(r'<link rel="stylesheet" href="/console/([^"]+)">', index)
    assert blocking == ["style.css"]
    assert "@import" not in (STATIC / "style.css").read_text()
    assert re.findall(r"<script(?![^>]* type=\"module\")", index) == []
    assert re.search(r'<div id="app">.*<h1>\w+</h1>.*</div>', index)
    needed: set[Path] = set()
    left = {STATIC / "app.js"}
    while left:
        path = left.pop()
        needed.add(path)
        imports = re.findall(r"(?:from ?|^import )[\"'](\.[^\"']+)[\"']", path.read_text(), re.MULTILINE)
        left |= {(path.parent / name).resolve() for name in imports} - needed
    asked = re.findall(r'(?:rel="modulepreload" href|src)="/console/([^"]+\.js)"', index)
    assert sorted(asked) == sorted(path.relative_to(STATIC).as_posix() for path in needed)
    first = [*needed, STATIC / "index.html", STATIC / "style.css"]
    assert sum(path.stat().st_size for path in first) < MAX_FIRST_BYTES


def test_types_are_right(tmp_path: Path) -> None:
    found = shutil.which("tsc") or str(ROOT / "tests/clients/node_modules/.bin/tsc")
    if not Path(found).exists() or shutil.which("node") is None:
        pytest.skip(f"{NOT_RUN}there is no TypeScript compiler (`make test-clients` installs one)")
    options = {"checkJs": True, "allowJs": True, "noEmit": True, "strict": True, "noUnusedLocals": True, "types": []}
    options |= {"target": "es2022", "module": "es2022", "moduleResolution": "bundler", "lib": ["es2023", *DOM]}
    project = tmp_path / "tsconfig.json"
    project.write_text(json.dumps({"compilerOptions": options, "files": [str(TYPES), str(STATIC / "app.js")]}))
    done = subprocess.run([found, "-p", project], capture_output=True, text=True, timeout=120)
    wrong = [line for line in done.stdout.splitlines() if "/console/" in line and "/vendor/" not in line]
    assert wrong == []
