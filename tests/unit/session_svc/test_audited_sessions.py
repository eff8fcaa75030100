"""Which RPCs of SessionService are recorded in the audit log."""

from access.rules import rules_of
from session_svc.audited_sessions import RECORDED, AuditedSessions

SERVICE = "parley.session.v1.SessionService"


def test_what_records_is_not_what_only_does() -> None:
    assert all(vars(AuditedSessions)[method.__name__] is method for method in RECORDED.values())


def test_exactly_what_the_contract_calls_audited_is_recorded() -> None:
    audited = {method.rpartition("/")[2] for method, rule in rules_of([SERVICE]).items() if rule.audited}
    assert audited == set(RECORDED)
