"""The console in a real browser, on the whole system. Errors, violations of its policy and foreign requests fail."""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from benchmarks.first_paint import appearance, first_paint_ms
from playwright.sync_api import Browser, Route, ViewportSize, expect

from tests.servers.browser import console_page, sign_in, visit
from tests.servers.mock_model import MODEL, Behaviour
from tests.servers.system import System

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs/images"
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
def system(guarded_system: System) -> System:
    guarded_system.model.reset()
    return guarded_system


def key_of(system: System, *scopes: str, **fields: object) -> str:
    with system.client() as client:
        answer = client.post("/v1/api_keys", json={"scopes": scopes, **fields})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


def test_a_key_opens_what_it_may_do_and_is_kept_nowhere(browser: Browser, system: System) -> None:
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        visit(page, "/console")
        page.get_by_label("API key").fill("parley_sk_nonsense")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("the credentials are not valid")
        sign_in(page, key_of(system, "chat", user_id="ann"))
        names = page.get_by_role("navigation", name="Main").get_by_role("link")
        expect(names).to_have_text(["Try"])
        kept = page.evaluate("[JSON.stringify({...localStorage, ...sessionStorage}), document.cookie]")
        assert kept == ["{}", ""]
        page.reload()
        expect(page.get_by_label("API key")).to_have_value("")


def test_what_a_key_may_not_do_is_not_in_the_page(browser: Browser, system: System) -> None:
    assert system.chat("hello", "Hi", session_id="read-only").status_code == 200
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        sign_in(page, key_of(system, "agents:read", "sessions:read"), "#/agents")
        expect(page.get_by_role("navigation", name="Main").get_by_role("link")).to_have_text(["Agents", "Sessions"])
        seen = {
            "#/agents": page.get_by_role("link", name="hello", exact=True),
            "#/agents/hello": page.get_by_label("Definition"),
            "#/agents/hello/revisions": page.get_by_role("region", name="Revisions"),
            "#/agents/~tools": page.get_by_role("heading", name="No tool servers yet"),
            "#/sessions/read-only": page.get_by_role("article", name="Turn 1"),
        }
        for place, expected in seen.items():
            page.evaluate("place => { location.hash = place; }", place)
            expect(expected).to_be_visible()
            words = page.locator("main :is(button:enabled, a.button)").all_text_contents()
            assert set(words) <= {"Sessions", "Diff", "Export"}, (place, words)
            for field in page.locator("section.card :is(input, textarea, select)").all():
                expect(field).to_be_editable(editable=False)
        page.evaluate("location.hash = '#/operate'")
        expect(page.get_by_role("heading", name="Page not found")).to_be_visible()


def test_it_is_painted_before_the_api_has_answered(browser: Browser, system: System) -> None:
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        held: list[Route] = []
        page.route("**/v1/**", lambda route: held.append(route))
        with page.expect_request("**/v1/auth"):
            visit(page, "/console")
        assert first_paint_ms(page) > 0
        expect(page.get_by_role("heading", name="Parley", exact=True)).to_be_visible()
        asked = page.evaluate(
            """performance.getEntriesByType('resource').filter(one => one.initiatorType !== 'fetch')
            .map(one => [new URL(one.name).pathname, one.renderBlockingStatus])"""
        )
        assert [path for path, blocks in asked if blocks != "non-blocking"] == ["/console/style.css"]
        assert 0 < len(asked) <= 11, asked
        for route in held:
            route.continue_()
        expect(page.get_by_label("API key")).to_be_visible()


def test_a_start_that_failed_is_tried_again(browser: Browser, system: System) -> None:
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        draining = {"error": {"message": "draining"}}
        page.route("**/v1/auth", lambda route: route.fulfill(status=503, json=draining), times=1)
        visit(page, "/console")
        expect(page.get_by_role("alert")).to_contain_text("draining")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_label("API key")).to_be_visible()


@pytest.mark.timing
def test_it_is_painted_within_a_second(browser: Browser, parley_system: System) -> None:
    """The best of some: a browser that other processes keep from running paints late, whatever the page is like."""
    parley_system.create_agent("hello")
    assert any(appearance(browser, parley_system.http_url).first_paint_ms < 1000 for _ in range(10))


def test_an_agent_is_tried_with_a_picture_its_prompt_and_the_same_by_program(browser: Browser, system: System) -> None:
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        sign_in(page, system.operator_key, "#/try/hello")
        message = page.get_by_label("Message")
        message.fill("What is **this**?")
        dropped = page.evaluate_handle(
            """picture => { const bytes = Uint8Array.from(atob(picture), c => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], 'a.png', {type: 'image/png'})); return data; }""",
            PICTURE,
        )
        message.dispatch_event("drop", {"dataTransfer": dropped})
        expect(page.get_by_alt_text("Picture 1")).to_be_visible()
        message.press("Enter")
        expect(page.locator(".answer strong")).to_have_text("this")
        [prompt] = system.model.prompts
        assert prompt[-1]["content"][1]["image_url"]["url"] == f"data:image/png;base64,{PICTURE}"
        expect(page.locator(".turnfacts")).to_contain_text("Revision1")
        page.get_by_role("button", name="Prompt", exact=True).click()
        expect(page.get_by_role("dialog")).to_contain_text("The window leaves nothing out.")
        expect(page.get_by_role("dialog")).to_contain_text("You are a test.")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Code").click()
        expect(page.get_by_role("dialog")).to_contain_text("Authorization: Bearer $PARLEY_API_KEY")
        for language in ("curl", "Python", "grpcurl"):
            page.get_by_role("button", name=language, exact=True).click()
            assert_runs(page.locator("dialog pre").inner_text(), language, system)
        page.keyboard.press("Escape")
        paste = "(into, data) => into.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true}))"
        message.evaluate(paste, dropped)
        page.get_by_role("button", name="Remove picture 1").click()
        expect(page.get_by_alt_text("Picture 1")).to_have_count(0)
        system.model.script(Behaviour(text="A line.\n\n" * 100))
        message.fill("At length")
        message.press("Enter")
        expect(page.locator(".turnfacts")).to_have_count(2)
        expect(page.locator(".turnfacts").nth(1)).to_be_in_viewport()  # the end of the long answer is followed
        expect(page.get_by_role("link", name=re.compile("^s-"))).to_have_attribute("href", re.compile("#/sessions/s-"))


def test_two_revisions_answer_side_by_side(browser: Browser, system: System) -> None:
    system.create_agent("compared", memory={"max_messages": 2})
    with system.client() as client:
        assert client.patch("/v1/agents/compared", json={"instructions": "You are another."}).status_code == 200
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        sign_in(page, system.operator_key, "#/try/compared")
        page.get_by_role("button", name="Compare two revisions").click()
        columns = [page.get_by_role("region", name=f"Conversation {number}") for number in (1, 2)]
        columns[0].get_by_label("Revision").select_option("1")
        columns[1].get_by_label("Revision").select_option("2")
        message = page.get_by_label("Message")
        for number, text in enumerate(("Both of you", "And again"), 1):
            message.fill(text)
            message.press("Enter")
            for revision, column in enumerate(columns, 1):
                expect(column.get_by_text(text, exact=True)).to_be_visible()
                expect(column.locator(".turnfacts")).to_have_count(number)
                facts = column.locator(".turnfacts").last
                expect(facts).to_contain_text(f"Revision{revision}")
                expect(facts).to_contain_text(re.compile(r"First token[\d.]+ m?sTotal[\d.]+ m?sTokens\d+ in, \d+ out"))
        asked = {(prompt[0]["content"], prompt[-1]["content"]) for prompt in system.model.prompts}
        assert asked == {
            (said, text) for said in ("You are a test.", "You are another.") for text in ("Both of you", "And again")
        }
        sessions = [column.get_by_role("link", name=re.compile("^s-")).inner_text() for column in columns]
        assert sessions[0] != sessions[1]
        message.fill("Once more")
        page.get_by_role("button", name="Show prompt").click()
        expect(page.get_by_role("dialog")).to_contain_text("The window leaves out")
    with system.client() as client:
        assert client.delete("/v1/agents/compared").status_code == 204


def test_a_turn_is_seen_as_it_comes_and_can_be_stopped(browser: Browser, system: System) -> None:
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        sign_in(page, system.operator_key, "#/try/hello")
        system.model.script(Behaviour(text="slowly it comes", hold_after_chunks=2))
        page.get_by_label("Message").fill("Take your time")
        page.get_by_label("Message").press("Enter")
        expect(page.locator(".answer.busy")).to_contain_text("slowly")
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("alert")).to_have_text("Stopped. Nothing of this turn was stored.")
        system.model.release()


def assert_runs(program: str, language: str, system: System) -> None:
    """What the page shows of a turn asks for the same, pasted as it is."""
    before = len(system.model.prompts)
    command = [sys.executable, "-c", program] if language == "Python" else ["bash", "-c", program]
    if language == "curl" and shutil.which("curl") is None:
        return
    environment = {"PARLEY_API_KEY": system.operator_key, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 1
    assert len(system.model.prompts) == before + 1
    assert system.model.prompts[-1][-1] == system.model.prompts[0][-1], "the model was asked the same"


def test_a_conversation_is_looked_into_watched_forked_and_a_user_erased(browser: Browser, system: System) -> None:
    def ask(text: str, **fields: object) -> None:
        answer = system.chat("hello", text, session_id="case-1", user_id="ben", **fields)
        assert answer.status_code == 200, answer.text

    ask("My order is late")
    ask("Still?")
    with console_page(browser, system.http_url) as watched, ThreadPoolExecutor(1) as pool:
        page = watched.page
        sign_in(page, system.operator_key, "#/sessions")
        page.get_by_label("Agent").fill("no-such-agent")
        expect(page.get_by_role("heading", name="No sessions")).to_be_visible()
        page.get_by_label("Agent").fill("hello")
        page.get_by_label("User", exact=True).fill("ben")
        expect(page.get_by_role("region", name="Sessions").get_by_role("row")).to_have_count(2)
        page.get_by_role("link", name="case-1").click()
        facts = page.locator("dl.facts").first
        expect(facts).to_contain_text(
            re.compile(r"Turns2Tokens\d+ in, \d+ outRevision1.*Expiresin \d+ (minute|hour|day)")
        )
        with page.expect_download() as exported:
            page.get_by_role("button", name="Export", exact=True).click()
        assert len(json.loads(exported.value.path().read_text())["messages"]) == 4
        expect(page.get_by_role("article", name="Turn 1")).to_contain_text("echo:2:My order is late")
        expect(page.get_by_role("article", name="Turn 2")).to_contain_text(MODEL)
        expect(page.get_by_role("article", name="Turn 2")).to_contain_text("in, ")
        system.model.script(Behaviour(text="slowly it comes", hold_after_chunks=2))
        running = pool.submit(ask, "Watch me", resumable=True, stream=True)
        expect(page.get_by_role("article", name="Running turn")).to_contain_text("slowly")
        system.model.release()
        expect(page.get_by_role("article", name="Turn 3")).to_contain_text("slowly it comes")
        running.result(30)
        page.get_by_role("article", name="Turn 1").get_by_role("button", name="Fork here").click()
        page.get_by_role("dialog").get_by_role("button", name="Fork here").click()
        expect(page.get_by_role("heading", name="case-1")).not_to_be_visible()
        expect(page.get_by_role("article", name="Turn 1")).to_be_visible()
        expect(page.get_by_role("article", name="Turn 2")).not_to_be_visible()
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        page.get_by_role("button", name="Export or erase a user").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("User id").fill("ben")
        with page.expect_download() as download:
            dialog.get_by_role("button", name="Export").click()
        lines = download.value.path().read_text().splitlines()
        assert json.loads(lines[0])["id"] == "case-1"
        dialog.get_by_role("button", name="Erase…").click()
        dialog.get_by_role("button", name="Erase permanently").click()
        expect(dialog).to_contain_text('"deleted_sessions": 1')
    with system.client() as client:
        assert client.get("/v1/sessions/case-1").status_code == 404


def test_pictures_of_it_are_in_the_readme(browser: Browser, system: System, tmp_path: Path) -> None:
    """Writes them with PARLEY_PICTURES=1, where README.md shows them."""
    folder = IMAGES if os.environ.get("PARLEY_PICTURES") else tmp_path
    answer = "Your order **A-1042** left our warehouse today.\n\n1. It travels by `express`\n2. It arrives *tomorrow*"
    agent = {"instructions": "You answer for {{company}}.", "parameters": {"company": "Acme"}}
    system.create_agent("support", **agent)
    with console_page(browser, system.http_url, ViewportSize(width=1100, height=640)) as watched:
        page = watched.page
        sign_in(page, system.operator_key, "#/try/support")
        system.model.script(Behaviour(text=answer))
        page.get_by_label("Message").fill("Where is my order?")
        page.get_by_label("Message").press("Enter")
        page.locator(".turnfacts").wait_for()
        page.screenshot(path=folder / "console-try.png")
        page.evaluate("location.hash = '#/agents/support'")
        page.get_by_text("valid", exact=True).wait_for()
        page.screenshot(path=folder / "console-agent.png")
    with system.client() as client:
        assert client.delete("/v1/agents/support").status_code == 204
    shown = re.findall(r"\((docs/images/[^)]+)\)", (ROOT / "README.md").read_text())
    assert sorted(shown) == sorted(f"docs/images/{path.name}" for path in folder.iterdir())
    assert all((ROOT / path).stat().st_size < 150_000 for path in shown)
