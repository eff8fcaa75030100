"""The console in a real browser, on the whole system. Errors, violations of its policy and foreign requests fail."""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml
from benchmarks.first_paint import appearance, first_paint_ms
from playwright.sync_api import Browser, Route, ViewportSize, expect

from tests.servers.browser import console_page, sign_in
from tests.servers.mock_model import MODEL, Behaviour
from tests.servers.system import PROVIDER, System

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
        page.goto("/console")
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


def test_it_is_painted_before_the_api_has_answered(browser: Browser, system: System) -> None:
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        held: list[Route] = []
        page.route("**/v1/**", lambda route: held.append(route))
        with page.expect_request("**/v1/auth"):
            page.goto("/console")
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
        page.get_by_role("button", name="Compare two revisions").click()
        message.fill("Both of you")
        message.press("Enter")
        expect(page.get_by_text("Both of you", exact=True)).to_have_count(2)
        expect(page.locator(".turnfacts")).to_have_count(4)


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


def test_an_agent_is_written_as_form_and_yaml_compared_and_rolled_back(browser: Browser, system: System) -> None:
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        sign_in(page, system.operator_key, "#/agents/~new")
        create = page.get_by_role("button", name="Create agent")
        page.get_by_label("Id", exact=True).fill("Not an id")
        page.get_by_label("Provider").select_option(PROVIDER)
        page.get_by_label("Model", exact=True).fill(MODEL)
        expect(page.locator(".field", has_text="Id").locator(".wrong").first).to_be_visible()
        expect(create).to_be_disabled()
        page.get_by_label("Id", exact=True).fill("helper")
        text = page.get_by_label("Definition")
        written = text.input_value().replace("You are a friendly assistant.", "You answer for {{company}}.")
        text.fill(written + 'parameters: {"company": "Acme"}\n')
        expect(page.get_by_label("company")).to_have_value("Acme")
        page.get_by_label("Temperature").fill("9")
        expect(page.get_by_text("must be at least 0 and at most 2")).to_have_count(2)
        page.get_by_label("Temperature").fill("1.5")
        expect(page.get_by_text("valid", exact=True)).to_be_visible()
        create.click()
        page.get_by_role("heading", name="helper").wait_for()
        page.get_by_label("Instructions").fill("Be brief.")
        page.get_by_label("Comment").fill("shorter")
        page.get_by_role("button", name="Save as new revision").click()
        expect(page.get_by_text("Revision 2 is now in use.")).to_be_visible()
        page.get_by_role("link", name="Revisions").click()
        expect(page.get_by_role("region", name="Revision 1 and 2")).to_contain_text("You answer for {{company}}.")
        page.get_by_role("button", name="Roll back").click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        expect(page.get_by_text("Revision 3 is now in use.")).to_be_visible()
        page.get_by_role("link", name="Releases and usage").click()
        expect(page.get_by_role("main")).to_contain_text("Applications can name a revision as helper@3")
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        page.get_by_label("Show deleted").check()
        page.get_by_label("Filter").fill("helper")
        page.get_by_role("button", name="Undelete").click()
        page.get_by_role("dialog").get_by_role("button", name="Undelete").click()
        expect(page.get_by_role("link", name="helper", exact=True)).to_be_visible()
    with system.client() as client:
        stored = client.get("/v1/agents/helper").json()
        assert (stored["revision"], stored["instructions"]) == (3, "You answer for {{company}}.")
        assert stored["parameters"] == {"company": "Acme"}
        assert client.delete("/v1/agents/helper").status_code == 204


def test_yaml_is_read_and_written_as_others_do(browser: Browser, system: System) -> None:
    values = {
        "text": "a: b # c",
        "lines": "one\n\n two\nthree\n",
        "open": "no\nend",
        "yes": "yes",
        "number": "1.0",
        "odd": "\x1b[31m\u2028é",
        "list": [1, -0.5, None, True, [], {}, [["x"]], {"a": {"b": ["c", {"d": "e"}]}}],
        'quoted "key"': " space ",
        "dash": "- x",
    }
    texts = ["a: 1\nb:\n- x\n- y: 'it''s'\n  z: >-\n    one\n    two\n", "# c\na: |+\n  x\n\nb: [1, 2]  # d\nc: ~\n"]
    texts.append("- mcp: {tool_server: a-b, allow: [x y, 'it''s', \"q, z\"],  # e\n    url: https://a.b/c}\n")
    texts.append("- {n: -1.5, of: [ true , ~, 1.0.0], 'k': {}, \"j\":[1]}\n")
    refused = [
        "a: &x 1",
        "a: b: c",
        "a:\n\tb: 1",
        "a: 1\na: 2",
        "---\na: 1\n---\nb: 2",
        "a: [1, &x y]",
        "a: {b: {c}",
        "a: [b: ]]",
        "a: !!int 3",
    ]
    with console_page(browser, system.http_url) as watched:
        watched.page.goto("/console")
        written, back, read, wrong = watched.page.evaluate(
            """async ([values, texts, refused]) => { const { dump, load } = await import('/console/yaml.js');
            const fails = text => { try { load(text); return 'taken'; } catch (error) { return error.message; } };
            return [dump(values), load(dump(values)), texts.map(load), refused.map(fails)]; }""",
            [values, texts, refused],
        )
    assert back == values
    assert yaml.safe_load(written) == values
    assert read == [yaml.safe_load(text) for text in texts]
    assert [text for text in wrong if not text.startswith("Line ")] == []


def test_a_conversation_is_looked_into_watched_forked_and_a_user_erased(browser: Browser, system: System) -> None:
    def ask(text: str, **fields: object) -> None:
        answer = system.chat("hello", text, session_id="case-1", user_id="ben", **fields)
        assert answer.status_code == 200, answer.text

    ask("My order is late")
    ask("Still?")
    with console_page(browser, system.http_url) as watched, ThreadPoolExecutor(1) as pool:
        page = watched.page
        sign_in(page, system.operator_key, "#/sessions")
        page.get_by_label("User", exact=True).fill("ben")
        page.get_by_role("link", name="case-1").click()
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


def test_an_installation_is_operated(browser: Browser, system: System) -> None:
    assert system.chat("hello", "Hi").status_code == 200
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        sign_in(page, system.operator_key, "#/operate")
        expect(page.get_by_role("status")).to_contain_text("ready")
        gateways = page.get_by_role("region", name="Gateways")
        expect(gateways).to_contain_text(f"{PROVIDER}: closed")
        for peer in ("config_svc", "session_svc"):
            expect(gateways).to_contain_text(f"{peer}: ok")
            row = page.get_by_role("region", name="Services").get_by_role("row", name=re.compile(peer))
            expect(row).to_contain_text("serving")
        expect(page.get_by_role("img", name=re.compile("Turns a second over the last hour"))).to_be_visible(
            timeout=40_000
        )
        expect(page.locator(".chart canvas")).to_have_count(6)
        page.get_by_role("link", name="API keys").click()
        page.get_by_role("button", name="New API key").click()
        page.get_by_role("dialog").get_by_label("Name").fill("made in the console")
        page.get_by_role("dialog").get_by_label("sessions:read").check()
        page.get_by_role("button", name="Create key").click()
        key = page.get_by_role("dialog").locator("code").inner_text()
        page.keyboard.press("Escape")
        row = page.get_by_role("row", name=re.compile("made in the console"))
        expect(row).to_contain_text("sessions:read")
        with httpx.Client(base_url=system.http_url, timeout=60, trust_env=False) as client:
            caller = client.get("/v1/caller", headers={"Authorization": f"Bearer {key}"}).json()
            assert (caller["scopes"], caller["project"]) == (["chat", "sessions:read"], "default")
        row.get_by_role("button", name="Revoke").click()
        page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
        expect(row).to_contain_text("revoked")
        page.get_by_role("link", name="Projects").click()
        page.get_by_label("New project").fill("from-the-console")
        page.get_by_role("button", name="Create").click()
        page.get_by_role("row", name=re.compile("from-the-console")).get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_role("row", name=re.compile("from-the-console"))).to_have_count(0)
        page.get_by_role("link", name="Audit log").click()
        page.get_by_label("Actor").fill("operator")
        expect(page.get_by_role("row", name=re.compile("api_keys.revoke")).first).to_be_visible()
        page.get_by_label("Resource").fill("no/such")
        expect(page.get_by_role("heading", name="Nothing recorded")).to_be_visible()


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
