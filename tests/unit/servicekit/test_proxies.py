"""Which proxy a request goes by."""

import pytest

from servicekit.proxies import proxy_for


@pytest.mark.parametrize(
    ("host", "none", "right"),
    [
        ("api.example", "", "http://proxy:3128"),
        ("api.example", "api.example", None),
        ("api.example", ".example", None),
        ("api.example", "other.example", "http://proxy:3128"),
        ("10.1.2.3", "10.0.0.0/8", None),
        ("11.1.2.3", "10.0.0.0/8", "http://proxy:3128"),
        ("fd00::1", "fd00::/8", None),
        ("127.0.0.1", "", None),
        ("::1", "", None),
        ("localhost", "", None),
    ],
)
def test_no_proxy_names_hosts_and_networks(host: str, none: str, right: str | None) -> None:
    assert proxy_for("https", host, 443, {"all": "proxy:3128", "no": none}) == right
    assert proxy_for("https", host, 443, {}) is None
