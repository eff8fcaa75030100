import pytest

from servicekit.settings import ServiceSettings, SettingsError, is_loopback
from servicekit.tls import TlsFiles


def test_defaults_are_private_to_this_machine() -> None:
    settings = ServiceSettings()
    assert (settings.host, settings.auth, settings.metrics_port) == ("127.0.0.1", "off", 0)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_GRPC_PORT", "50052")
    monkeypatch.setenv("PARLEY_LOG_LEVEL", "debug")
    settings = ServiceSettings()
    assert (settings.grpc_port, settings.log_level) == (50052, "debug")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.com", "0"])
def test_an_open_door_without_authentication_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match="authentication is off"):
        ServiceSettings(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_authentication(host: str) -> None:
    assert is_loopback(host)
    assert ServiceSettings(host=host).host == host


@pytest.mark.parametrize(
    ("name", "value"), [("GRPC_PORT", "65536"), ("DRAIN_TIMEOUT", "nan"), ("LOG_FORMAT", "xml"), ("HOST", "")]
)
def test_values_out_of_bounds_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PARLEY_{name}", value)
    with pytest.raises(SettingsError):
        ServiceSettings()


TLS = {"CERT_FILE": "tls.crt", "KEY_FILE": "tls.key", "CA_FILE": "ca.crt", "PEERS": "gateway, spiffe://a/b ,"}


class EdgeSettings(ServiceSettings):
    edge = True


def test_tls_between_services_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TLS.items():
        monkeypatch.setenv(f"PARLEY_TLS_{name}", value)
    settings = ServiceSettings()
    assert settings.tls_files == TlsFiles("tls.crt", "tls.key", "ca.crt")
    assert settings.tls_peers == ("gateway", "spiffe://a/b")
    assert ServiceSettings(tls_cert_file="", tls_key_file="", tls_ca_file="", tls_peers=()).tls_files is None


@pytest.mark.parametrize("missing", TLS)
def test_half_of_tls_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name, value in TLS.items():
        monkeypatch.setenv(f"PARLEY_TLS_{name}", "" if name == missing else value)
    with pytest.raises(SettingsError, match=f"PARLEY_TLS_{missing}"):
        ServiceSettings()
    if missing == "PEERS":
        assert EdgeSettings().tls_files  # it takes calls of clients, and calls others


def test_services_speak_in_the_clear_on_this_machine_only() -> None:
    with pytest.raises(SettingsError, match="not encrypted: set PARLEY_TLS_CERT_FILE"):
        ServiceSettings(host="0.0.0.0", auth="required")
    settings = ServiceSettings(
        host="0.0.0.0", auth="required", tls_cert_file="a", tls_key_file="b", tls_ca_file="c", tls_peers=("gateway",)
    )
    assert settings.tls_files
    assert EdgeSettings(host="0.0.0.0", auth="required").tls_files is None  # an ingress may stand before it
