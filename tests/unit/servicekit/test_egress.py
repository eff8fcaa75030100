"""What the rules of egress allow, and what no notation gets past them."""

import ipaddress

import pytest

from servicekit.egress import EgressDenied, EgressRules, Target, is_public

PUBLIC = EgressRules()


def permits(rules: EgressRules, url: str, address: str) -> bool:
    target = rules.check_url(url)
    return rules.permits(target, ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "10.0.0.1",
        "172.16.9.9",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "192.88.99.1",
        "198.18.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2002:a00:1::",
        "2001:0:1:2:3:4:5:6",
        "2001:db8::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_everybodys_are_refused(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert not permits(PUBLIC, "https://tools.example.com/", address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert permits(PUBLIC, "https://tools.example.com/mcp", address)
    assert permits(PUBLIC, "https://tools.example.com:8443/mcp", address)


@pytest.mark.parametrize(
    "url",
    [
        "http://tools.example.com/",
        "ftp://tools.example.com/",
        "file:///etc/passwd",
        "unix:///run/docker.sock",
        "//tools.example.com/",
        "tools.example.com",
        "",
        "https://",
        "https://user:pass@tools.example.com/",
        "https://user@tools.example.com/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://127.0.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://010.0.0.1/",
        "https://tools.0x7f/",
        "https://①②⑦.0.0.1/",
        "https://127。0。0。1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[fe80::1%25eth0]/",
        "https://0/",
        "https://tools.example.com\\@127.0.0.1/",
        "https://127.0.0.1\t.example.com/",
        "https://tools.example.com/\r\nHost: x",
        "https://tools.example.com:99999/",
        "https://tools .example.com/",
        "https://tools%2eexample.com/",
        "https://*.example.com/",
        "https://a..b/",
    ],
)
def test_urls_in_odd_notations_are_refused(url: str) -> None:
    with pytest.raises(EgressDenied):
        PUBLIC.check_url(url)


def test_only_what_is_named_is_allowed_once_rules_are_set() -> None:
    rules = EgressRules(["tools.internal", "*.svc.example.com", "http://gateway.local:8080", "10.1.0.0/16"])
    assert permits(rules, "https://tools.internal/x", "10.9.9.9")
    assert permits(rules, "https://TOOLS.internal.:8443/x", "192.168.0.1")
    assert permits(rules, "https://a.b.svc.example.com/", "10.2.2.2")
    assert permits(rules, "http://gateway.local:8080/", "127.0.0.1")
    assert permits(rules, "https://anything.example.org/", "10.1.2.3")
    for url, address in [
        ("http://tools.internal/", "10.9.9.9"),
        ("https://svc.example.com/", "10.2.2.2"),
        ("https://evilsvc.example.com/", "8.8.8.8"),
        ("http://gateway.local/", "127.0.0.1"),
        ("http://gateway.local:8081/", "127.0.0.1"),
        ("https://anything.example.org/", "10.2.0.1"),
        ("https://anything.example.org/", "8.8.8.8"),
        ("https://a.svc.example.com/", "127.0.0.1"),
        ("https://tools.internal/", "169.254.169.254"),
        ("https://tools.internal/", "::ffff:169.254.169.254"),
        ("https://tools.internal/", "64:ff9b::a9fe:a9fe"),
    ]:
        with pytest.raises(EgressDenied):
            if not permits(rules, url, address):
                raise EgressDenied(url)


def test_networks_with_a_scheme_and_ports() -> None:
    rules = EgressRules(["http://127.0.0.1:*", "http://[::1]:9000", "https://*", "http://169.254.169.254"])
    assert permits(rules, "http://127.0.0.1:1234/", "127.0.0.1")
    assert permits(rules, "http://localhost:1234/", "127.0.0.1")
    assert permits(rules, "http://localhost:1234/", "::ffff:127.0.0.1")
    assert permits(rules, "http://[::1]:9000/", "::1")
    assert permits(rules, "http://169.254.169.254/", "169.254.169.254")
    assert permits(rules, "https://tools.example.com/", "8.8.8.8")
    for url in ("http://[::1]:9001/", "http://127.0.0.2:80/", "https://127.0.0.1/", "https://example.com:8443/"):
        with pytest.raises(EgressDenied):
            rules.check_url(url)
    assert not permits(rules, "http://rebinds.example.com:80/", "8.8.8.8")


def test_an_origin_that_the_operator_named_is_allowed_wherever_it_is() -> None:
    rules = EgressRules(()).with_origin("http://127.0.0.1:8000/mcp").with_origin("http://id.internal/")
    assert permits(rules, "http://127.0.0.1:8000/other", "127.0.0.1")
    assert permits(rules, "http://id.internal/keys", "10.0.0.7")
    for url in ("http://127.0.0.1:8001/", "https://127.0.0.1:8000/", "https://example.com/"):
        with pytest.raises(EgressDenied):
            rules.check_url(url)


@pytest.mark.parametrize(
    "rule",
    ["", "*", "ftp://x", "10.0.0.1/8", "http://x:0", "http://x:70000", "http://x:a", "a b", "127.1", "x/y", "-x", "*."],
)
def test_rules_that_are_none_are_refused(rule: str) -> None:
    with pytest.raises(ValueError, match=r"'"):
        EgressRules([rule])


def test_the_error_names_the_target_and_not_its_address() -> None:
    with pytest.raises(EgressDenied) as denied:
        PUBLIC.check_url("http://tools.example.com:81/secret?token=x")
    assert denied.value.metadata == {"target": "http://tools.example.com:81"}
    assert "secret" not in denied.value.message
    assert str(Target("https", "::1", 443)) == "https://[::1]"


def test_a_url_that_was_checked_before_is_what_it_was() -> None:
    rules = EgressRules(["tools.example.com", "10.1.0.0/16"])
    wider = rules.with_origin("http://other.example.com")
    for number in range(600):  # more than are remembered
        target = rules.check_url(f"https://tools.example.com/{number}")
        assert (target.host, target.port) == ("tools.example.com", 443)
    for _ in range(2):
        assert rules.check_url("https://10.1.2.3/mcp").host == "10.1.2.3"
        assert wider.check_url("http://other.example.com/mcp").scheme == "http"
        for denied in ("http://other.example.com/mcp", "https://10.2.0.1/mcp", "http://tools.example.com/1"):
            with pytest.raises(EgressDenied):
                rules.check_url(denied)
