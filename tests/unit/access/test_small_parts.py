import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from access.api_key import is_api_key, is_made_here, mark_secret_of, new_api_key
from access.authenticator import Authenticator, bearer, fixed_callers, peer_credential
from access.binding import bound_project, bound_user, scopes_of
from access.caller import ANONYMOUS, Caller, note_user_token, user_token
from access.errors import ProjectDenied, Unauthenticated, UserDenied
from access.rules import require_audit, rules_of
from access.settings import AccessSettings
from parley.access.v1 import rule_pb2
from parley.chat.v1 import chat_service_pb2
from servicekit.errors import StartupError
from servicekit.peers import address_of
from servicekit.settings import SettingsError
from servicekit.sites import site_of

OPERATOR_KEY = "an-operator-key-of-forty-characters-or-so"


def test_a_key_tells_a_typo_from_itself() -> None:
    keys = {new_api_key() for _ in range(100)}
    assert len(keys) == 100
    for key in keys:
        assert is_api_key(key)
        assert len(key) == 59
        for at in (10, 30, 52, 58):
            other = "a" if key[at] != "a" else "b"
            assert not is_api_key(key[:at] + other + key[at + 1 :])


def test_only_an_installation_can_mark_its_keys() -> None:
    secret = mark_secret_of(OPERATOR_KEY)
    ours = new_api_key(secret)
    assert is_api_key(ours), "the form is that of keys without a mark, which every release knows"
    assert is_made_here(ours, secret)
    assert not is_made_here(ours, mark_secret_of("another"))
    assert not any(is_made_here(new_api_key(), secret) for _ in range(100))


@pytest.mark.parametrize(
    ("peer", "site"),
    [
        ("ipv4:192.0.2.1:50051", "192.0.2.1"),
        ("ipv6:%5B::1%5D:50051", "0/64"),
        ("ipv6:[2001:db8:0:1::9]:7", "20010db800000001/64"),
        ("ipv6:[::ffff:192.0.2.1]:7", "192.0.2.1"),
        ("unix:/run/a", "unix:/run/a"),
        ("", ""),
    ],
)
def test_a_source_is_an_address_or_the_64_of_one(peer: str, site: str) -> None:
    assert site_of(address_of(peer)) == site


def test_what_a_caller_may_name() -> None:
    key = Caller("k1", "acme", frozenset({"chat"}), user_id="ann")
    assert (bound_project(key, ""), bound_project(key, "acme")) == ("acme", "acme")
    assert (bound_user(key, ""), bound_user(key, "ann")) == ("ann", "ann")
    with pytest.raises(ProjectDenied) as denied:
        bound_project(key, "other")
    assert denied.value.metadata == {"project": "acme"}
    with pytest.raises(UserDenied):
        bound_user(key, "bob")
    free = Caller("k2", "acme", frozenset({"chat"}))
    assert (bound_user(free, ""), bound_user(free, "bob")) == ("", "bob")
    assert (bound_project(ANONYMOUS, ""), bound_project(ANONYMOUS, "other")) == ("", "other")
    service = Caller("k1", "", frozenset({"service"}), user_id="ann")
    assert bound_user(service, "bob") == "bob"


def test_a_project_s_credentials_never_carry_more_than_they_can() -> None:
    assert scopes_of(["agents:write", "operator", "service", "nonsense"], user_bound=False) == {
        "agents:write",
        "agents:read",
    }
    assert scopes_of(["keys:admin", "runtime:admin", "sessions:admin"], user_bound=True) == {
        "sessions:admin",
        "sessions:read",
    }


async def test_the_operator_and_each_service_are_known_by_what_is_derived_from_one_key() -> None:
    authenticator = Authenticator(fixed_callers(OPERATOR_KEY, ["chat_gateway"]))
    operator = await authenticator.caller_of(OPERATOR_KEY)
    assert operator.may("agents:write")
    assert operator.may("operator")
    assert not operator.may("service")
    gateway = await authenticator.caller_of(peer_credential(OPERATOR_KEY, "chat_gateway"))
    assert gateway.id == "service:chat_gateway"
    assert gateway.may("service")
    for wrong in (peer_credential(OPERATOR_KEY, "session_svc"), OPERATOR_KEY + "x", "é" * 40, "x" * 10_000):
        with pytest.raises(Unauthenticated):
            await authenticator.caller_of(wrong)


def test_a_credential_comes_as_bearer() -> None:
    assert bearer("Bearer abc") == bearer("bearer  abc ") == "abc"
    for wrong in ("", "Bearer", "Bearer ", "Basic abc", "abc"):
        with pytest.raises(Unauthenticated):
            bearer(wrong)


def test_a_rule_s_field_is_bound_where_it_stands() -> None:
    rule = rules_of(["parley.chat.v1.ChatService"])["/parley.chat.v1.ChatService/Complete"]
    key = Caller("k1", "acme", frozenset({"chat"}), user_id="ann")
    request = chat_service_pb2.CompleteRequest()
    rule.admit(key, request)
    assert (request.input.project, request.input.user_id) == ("acme", "ann")
    with pytest.raises(ProjectDenied):
        rule.admit(key, chat_service_pb2.CompleteRequest(input=chat_service_pb2.TurnInput(project="other")))
    untouched = chat_service_pb2.CompleteRequest()
    rule.admit(ANONYMOUS, untouched)
    assert not untouched.HasField("input")


def test_a_service_does_not_start_with_an_audited_method_that_nothing_records() -> None:
    rules = rules_of(["parley.session.v1.SessionService"])
    audited = {method for method, rule in rules.items() if rule.audited}
    assert "/parley.session.v1.SessionService/DeleteSession" in audited
    assert "/parley.session.v1.SessionService/GetSession" not in audited
    require_audit(rules, audited)
    with pytest.raises(StartupError, match="SessionService/DeleteSession"):
        require_audit(rules, audited - {"/parley.session.v1.SessionService/DeleteSession"})


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        (None, "states no access rule"),
        (rule_pb2.Rule(scope="nonsense"), "no known scope"),
        (rule_pb2.Rule(scope="chat", audit=rule_pb2.AUDIT_NONE, project="nothing"), "no text field"),
        (rule_pb2.Rule(scope="chat", audit=rule_pb2.AUDIT_NONE, project="name.more"), "no text field"),
        (rule_pb2.Rule(scope="chat", audit=rule_pb2.AUDIT_NONE, user="number"), "no text field"),
        (rule_pb2.Rule(scope="chat"), "does not say whether calls are audited"),
    ],
)
def test_a_method_without_a_rule_that_can_be_kept_stops_the_service(
    rule: rule_pb2.Rule | None, complaint: str, request: pytest.FixtureRequest
) -> None:
    package = f"test{abs(hash(request.node.name))}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    message = file.message_type.add(name="Request")
    message.field.add(name="name", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    message.field.add(name="number", number=2, type="TYPE_INT32", label="LABEL_OPTIONAL")
    method = file.service.add(name="Service").method.add(name="Do")
    method.input_type = method.output_type = f".{package}.Request"
    if rule is not None:
        method.options.Extensions[rule_pb2.rule].CopyFrom(rule)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    with pytest.raises(StartupError, match=complaint):
        rules_of([f"{package}.Service"])


def test_required_authentication_needs_an_operator_key(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PARLEY_AUTH", "required")
    with pytest.raises(SettingsError, match="needs PARLEY_OPERATOR_KEY or PARLEY_OPERATOR_KEY_FILE"):
        AccessSettings()
    monkeypatch.setenv("PARLEY_OPERATOR_KEY", "short")
    with pytest.raises(SettingsError, match="at least 32"):
        AccessSettings()
    monkeypatch.setenv("PARLEY_OPERATOR_KEY", OPERATOR_KEY)
    assert AccessSettings().read_operator_key() == OPERATOR_KEY
    assert OPERATOR_KEY not in repr(AccessSettings())
    file = tmp_path / "key"
    monkeypatch.setenv("PARLEY_OPERATOR_KEY_FILE", str(file))
    with pytest.raises(SettingsError, match="can't both be set"):
        AccessSettings()
    monkeypatch.delenv("PARLEY_OPERATOR_KEY")
    with pytest.raises(SettingsError, match="can't be read"):
        AccessSettings()
    file.write_text(OPERATOR_KEY + "\n")
    assert AccessSettings().read_operator_key() == OPERATOR_KEY


def test_only_the_token_of_an_identity_provider_is_kept_for_the_request() -> None:
    note_user_token(Caller("token:ann", "default", frozenset()), "eyJ.a.b")
    assert user_token() == "eyJ.a.b"
    for other in (Caller("key_1", "default", frozenset()), ANONYMOUS):
        note_user_token(Caller("token:ann", "default", frozenset()), "eyJ.a.b")
        note_user_token(other, "pk_secret")
        assert user_token() == ""
