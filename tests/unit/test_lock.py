"""constraints.txt locks all that pyproject.toml leads to, by the hashes of its files, and names no index."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKED = ROOT / "constraints.txt"
sys.path[:0] = [str(ROOT / "deploy" / "images"), str(ROOT / ".ci")]

from audit import report  # noqa: E402
from locked import closure, entries, locked_lines  # noqa: E402


def project() -> dict[str, list[str]]:
    read = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = read["optional-dependencies"]
    return {
        "": read["dependencies"],
        **{name: extras[name] for name in extras if name != "dev"},
        "dev": extras["dev"][1:],
    }


@pytest.mark.parametrize("extra", project())
def test_all_that_an_extra_leads_to_is_locked(extra: str) -> None:
    assert locked_lines(LOCKED, closure(project()[extra], {}))


def test_every_entry_is_one_version_with_hashes() -> None:
    text = LOCKED.read_text()
    starts = re.findall(r"^[^\s#]+", text, re.MULTILINE)
    assert len(starts) == len(entries(LOCKED)) == len({canonicalize_name(one.partition("==")[0]) for one in starts})
    for name, lines in entries(LOCKED).items():
        (pin,) = Requirement(lines.partition("\\")[0]).specifier
        assert pin.operator == "==", name
        assert re.search(r"--hash=sha256:[0-9a-f]{64}$", lines, re.MULTILINE), name


def test_what_the_extras_ask_for_is_what_is_locked() -> None:
    pins = {
        name: next(iter(Requirement(text.partition("\\")[0]).specifier)).version
        for name, text in entries(LOCKED).items()
    }
    for asked in (Requirement(text) for texts in project().values() for text in texts):
        assert asked.specifier.contains(pins[canonicalize_name(asked.name)], prereleases=True), str(asked)


def test_the_lock_names_no_index() -> None:
    assert "://" not in LOCKED.read_text()
    assert "index-url" not in LOCKED.read_text()


def test_a_package_that_is_not_locked_is_named() -> None:
    with pytest.raises(SystemExit, match=r"does not lock nonsense-1: `make lock`"):
        locked_lines(LOCKED, {"nonsense-1", "aiohttp"})


def test_an_audit_passes_only_when_every_package_was_looked_up(capsys: pytest.CaptureFixture[str]) -> None:
    good = {"name": "a", "version": "1", "vulns": []}
    bad = {"name": "b", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
    unknown = {"name": "c", "skip_reason": "not found"}
    assert report("service", [good]) == 0
    assert report("service", [good, unknown]) == 2
    assert "NOT AUDITED, service does not know them: c" in capsys.readouterr().err
    assert report("service", [good, bad, unknown]) == 1
    assert "b 1: CVE-1, fixed in 2" in capsys.readouterr().out
