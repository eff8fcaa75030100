"""Debian's chromium, driven by Playwright, and what a page of the console must never do."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, ViewportSize, expect, sync_playwright

from tests.conftest import NOT_RUN

DESKTOP = ViewportSize(width=1280, height=860)
PHONE = ViewportSize(width=390, height=844)
WAIT_MS = 20_000
AXE = ("4.14.1", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c")
CACHE = Path(__file__).parents[2] / ".cache"
# A violation of the policy (CSP) is a message of the console, too; a refused request is often the test's own.
_EXPECTED = "Failed to load resource: the server responded with a status of"
_DROPPED = "net::ERR_NETWORK_CHANGED"
"""Chromium drops its requests when an interface comes or goes, as with each container that other tests start or end."""
VISITS = 5


@dataclass
class Watched:
    """A page, what it waits for, and what went wrong in it: errors, violations of its policy, requests to elsewhere."""

    page: Page
    origin: str
    wrong: list[str] = field(default_factory=list)
    elsewhere: tuple[str, ...] = ()
    requests: dict[Request, str] = field(default_factory=dict)
    """How each request of the page stands."""

    def watch(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", self._asked)
        self.page.on("requestfinished", lambda request: self.requests.pop(request, None))
        self.page.on("requestfailed", lambda request: self.requests.update({request: f"failed: {request.failure}"}))
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))

    def _said(self, message: ConsoleMessage) -> None:
        expected = message.text.startswith(_EXPECTED) or message.text.endswith(_DROPPED)
        if message.type in ("error", "warning") and not expected:
            self.wrong.append(f"{message.type}: {message.text}")

    def state(self) -> str:
        """Returns what a failed test leaves unsaid: what the page shows, and which of its requests have no answer."""
        unanswered = [f"{request.url} {how}" for request, how in self.requests.items()]
        return f"unanswered: {unanswered}\nwrong: {self.wrong}\npage: {self.page.content()}"

    def _asked(self, request: Request) -> None:
        self.requests[request] = "has no answer"
        if not request.url.startswith((self.origin, "data:", "blob:", *self.elsewhere)):
            self.wrong.append(f"request to {request.url}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Starts the machine's browser. Skips where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip(f"{NOT_RUN}there is no chromium")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def console_page(
    browser: Browser,
    origin: str,
    viewport: ViewportSize = DESKTOP,
    *,
    dark: bool = False,
    elsewhere: tuple[str, ...] = (),
) -> Iterator[Watched]:
    """Opens a page in a context of its own; what went wrong in it fails the test at the end."""
    context = browser.new_context(viewport=viewport, color_scheme="dark" if dark else "light", base_url=origin)
    context.set_default_timeout(WAIT_MS)
    watched = Watched(context.new_page(), origin, elsewhere=elsewhere)
    watched.watch()
    try:
        yield watched
        assert watched.wrong == []
    except (Error, AssertionError) as error:
        error.add_note(watched.state())
        raise
    finally:
        context.close()


def visit(page: Page, path: str) -> None:
    """Opens a page, and again while the browser drops requests for its parts."""
    dropped: list[Request] = []

    def note(request: Request) -> None:
        if request.failure == _DROPPED:
            dropped.append(request)

    page.on("requestfailed", note)
    for attempt in range(VISITS):
        dropped.clear()
        try:
            page.reload() if attempt else page.goto(path)
        except Error as error:
            if _DROPPED not in error.message:
                raise
        if not dropped:
            break
    page.remove_listener("requestfailed", note)


def sign_in(page: Page, key: str, to: str = "") -> None:
    """Opens the console at `to` (`#/try`), and signs in there."""
    visit(page, f"/console{to}")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("navigation", name="Main").wait_for()


def axe() -> str:
    """Returns axe-core as a program for a page, from npm once and then from a cache. Skips where it can't be had."""
    cached = CACHE / f"axe-core-{AXE[0]}.js"
    if not cached.exists():
        if shutil.which("npm") is None:
            pytest.skip(f"{NOT_RUN}there is no npm to fetch axe-core with")
        with tempfile.TemporaryDirectory() as scratch:
            command = ["npm", "pack", f"axe-core@{AXE[0]}", "--silent", "--pack-destination", scratch]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
            if done.returncode:
                pytest.skip(f"{NOT_RUN}npm can't fetch axe-core")
            with tarfile.open(Path(scratch) / f"axe-core-{AXE[0]}.tgz") as archive:
                source = archive.extractfile("package/axe.min.js")
                assert source is not None
                content = source.read()
        assert hashlib.sha256(content).hexdigest() == AXE[1]
        CACHE.mkdir(parents=True, exist_ok=True)
        cached.write_bytes(content)
    return cached.read_text()
