"""The console in a real browser, on the whole system. Errors, violations of its policy and foreign requests fail."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.servers.browser import chromium, console_page
from tests.servers.system import System

PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def system(guarded_system: System) -> System:
    guarded_system.model.reset()
    return guarded_system


def sign_in(page: Page, key: str, to: str = "") -> None:
    page.goto(f"/console{to}")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("navigation", name="Main").wait_for()


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
        page.get_by_role("button", name="grpcurl").click()
        expect(page.get_by_role("dialog")).to_contain_text("parley.chat.v1.ChatService/StreamComplete")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Compare two revisions").click()
        message.fill("Both of you")
        message.press("Enter")
        expect(page.get_by_text("Both of you", exact=True)).to_have_count(2)
        expect(page.locator(".turnfacts")).to_have_count(3)
