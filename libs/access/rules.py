"""The rules that the contract states for every RPC (parley.access.v1.rule), as code."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from access.binding import bound_project, bound_user, require
from access.caller import KEY_SCOPES, OPERATOR, SERVICE, Caller
from parley.access.v1 import rule_pb2
from servicekit import reflection
from servicekit.errors import StartupError

OPEN = ("/grpc.health.v1.Health/", *(f"/{service}/" for service in reflection.SERVICES))
"""Methods open to anybody: health and, if served, reflection."""

_SCOPES = KEY_SCOPES | {OPERATOR, SERVICE}


@dataclass(frozen=True, slots=True)
class Field:
    """A string field of a request, by its path."""

    parents: tuple[str, ...]
    name: str

    def bind(self, message: Any, bound: Callable[[Caller, str], str], caller: Caller) -> None:
        """Replaces the field's value by what `bound` returns for it. Raises what `bound` raises."""
        for parent in self.parents:
            message = getattr(message, parent)
        named = getattr(message, self.name)
        value = bound(caller, named)
        if value != named:
            setattr(message, self.name, value)


@dataclass(frozen=True, slots=True)
class MethodRule:
    """The scope that a method requires, and the fields of its request that are bound to the caller."""

    scope: str
    project: Field | None = None
    user: Field | None = None
    audited: bool = False

    def admit(self, caller: Caller, request: Message) -> None:
        """Binds the request to the caller. Raises `ScopeMissing`, `ProjectDenied` or `UserDenied`."""
        require(caller, self.scope)
        if self.project is not None:
            self.project.bind(request, bound_project, caller)
        if self.user is not None:
            self.user.bind(request, bound_user, caller)


def rules_of(services: Iterable[str]) -> Mapping[str, MethodRule]:
    """Returns the rule of every method (`/package.Service/Method`) of these services.

    Raises `StartupError` for a method without a rule, or with an invalid one.
    """
    pool = descriptor_pool.Default()
    rules = {}
    for service in services:
        for method in pool.FindServiceByName(service).methods:
            rules[f"/{service}/{method.name}"] = _rule(method)
    return rules


def _rule(method: MethodDescriptor) -> MethodRule:
    options = method.GetOptions()
    if not options.HasExtension(rule_pb2.rule):
        raise StartupError(f"{method.full_name} states no access rule (parley.access.v1.rule)")
    rule = options.Extensions[rule_pb2.rule]
    if rule.scope not in _SCOPES:
        raise StartupError(f"{method.full_name}: the access rule names no known scope, but {rule.scope!r}")
    if method.client_streaming and (rule.project or rule.user):
        raise StartupError(f"{method.full_name}: the fields of streamed requests can't be bound")
    if rule.audit == rule_pb2.AUDIT_UNSPECIFIED:
        raise StartupError(f"{method.full_name}: the access rule does not say whether calls are audited")
    audited = rule.audit == rule_pb2.AUDIT_RECORDED
    return MethodRule(rule.scope, _field(method, rule.project), _field(method, rule.user), audited)


def require_audit(rules: Mapping[str, MethodRule], recorded: Collection[str]) -> None:
    """Raises `StartupError` unless every audited method of `rules` is in `recorded`."""
    missing = sorted(method for method, rule in rules.items() if rule.audited and method not in recorded)
    if missing:
        raise StartupError(f"audited by their access rules, and recorded by nothing here: {', '.join(missing)}")


def _field(method: MethodDescriptor, path: str) -> Field | None:
    if not path:
        return None
    *parents, name = path.split(".")
    message: Descriptor | None = method.input_type
    for parent in parents:
        field = message.fields_by_name.get(parent) if message is not None else None
        message = field.message_type if field is not None and not field.is_repeated else None
    leaf = message.fields_by_name.get(name) if message is not None else None
    if leaf is None or leaf.type != FieldDescriptor.TYPE_STRING or leaf.is_repeated:
        raise StartupError(f"{method.full_name}: the access rule binds {path!r}, which is no text field of its request")
    return Field(tuple(parents), name)
