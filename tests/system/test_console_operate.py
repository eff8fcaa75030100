"""The console for who operates an installation: its state, API keys, projects and the audit log."""

import re

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.servers.browser import console_page, sign_in
from tests.servers.mock_model import Behaviour
from tests.servers.system import PROVIDER, System


@pytest.fixture
def system(guarded_system: System) -> System:
    guarded_system.model.reset()
    return guarded_system


def test_an_installation_is_operated(browser: Browser, system: System) -> None:
    assert system.chat("hello", "Hi").status_code == 200
    system.model.script(Behaviour(status=400))
    assert system.chat("hello", "Fail").status_code >= 400
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
            timeout=60_000
        )
        expect(page.locator(".chart canvas")).to_have_count(6)
        expect(page.get_by_role("region", name="Errors")).to_contain_text("provider_", timeout=60_000)
        page.get_by_role("link", name="Instances").click()
        instances = page.get_by_role("region", name="Instances")
        expect(instances.get_by_role("row", name=re.compile("hello")).first).to_be_visible()


def test_keys_and_projects_are_managed_and_the_audit_log_is_filtered(browser: Browser, system: System) -> None:
    with console_page(browser, system.http_url) as watched:
        page = watched.page
        sign_in(page, system.operator_key, "#/operate/keys")
        page.get_by_role("button", name="New API key").click()
        page.get_by_role("dialog").get_by_label("Name").fill("made in the console")
        page.get_by_role("dialog").get_by_label("Turns a minute").fill("7")
        page.get_by_role("dialog").get_by_label("sessions:read").check()
        page.get_by_role("button", name="Create key").click()
        key = page.get_by_role("dialog").locator("code").inner_text()
        page.keyboard.press("Escape")
        row = page.get_by_role("row", name=re.compile("made in the console"))
        expect(row).to_contain_text("sessions:read")
        expect(row).to_contain_text("7 a minute")
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
        revoked = page.get_by_role("row", name=re.compile("api_keys.revoke")).first
        expect(revoked).to_be_visible()
        page.get_by_label("Actor").fill("nobody")
        expect(page.get_by_role("heading", name="Nothing recorded")).to_be_visible()
        page.get_by_label("Actor").fill("")
        for bound, none in (("From", "2999-01-01T00:00"), ("To", "2020-01-01T00:00")):
            page.get_by_label(bound, exact=True).fill(none)
            expect(page.get_by_role("heading", name="Nothing recorded")).to_be_visible()
            page.get_by_label(bound, exact=True).fill("")
            expect(revoked).to_be_visible()
        page.get_by_label("Resource").fill("no/such")
        expect(page.get_by_role("heading", name="Nothing recorded")).to_be_visible()
