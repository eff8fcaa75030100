"""Metadata that decides something is given once."""

from types import SimpleNamespace
from typing import Any

import pytest

from access.authenticator import Authenticator
from access.caller import CHAT, SERVICE, Caller, current
from access.interceptor import (
    CALLER_KEY,
    REQUEST_ID_KEY,
    SCOPES_KEY,
    SOURCE_KEY,
    USER_KEY,
    AccessInterceptor,
    Origin,
)
from access.rules import MethodRule
from servicekit.errors import InvalidArgument
from servicekit.interceptors import HandlerInterceptor

METHOD = "/parley.chat.v1.ChatService/Complete"
RULES = {METHOD: MethodRule(CHAT)}
GATEWAY = Caller("service:chat_gateway", "", frozenset({SERVICE, CHAT}))
ACCESS = AccessInterceptor(Authenticator({"credential": GATEWAY}), RULES)
ORIGIN = Origin(RULES)
BEARER = ("authorization", "Bearer credential")


async def call(interceptor: HandlerInterceptor, *metadata: tuple[str, str]) -> Caller:
    """Returns who a call with this metadata is made for."""

    async def behavior(request: Any, context: Any) -> Caller:
        return current()

    context: Any = SimpleNamespace(invocation_metadata=lambda: metadata, peer=lambda: "ipv4:192.0.2.1:50051")
    caller: Caller = await interceptor.wrap(METHOD, behavior)(None, context)
    return caller


@pytest.mark.parametrize(
    "key", ["authorization", CALLER_KEY, USER_KEY, REQUEST_ID_KEY, SOURCE_KEY, SCOPES_KEY, "x-request-id"]
)
@pytest.mark.parametrize("interceptor", [ACCESS, ORIGIN], ids=["required", "off"])
@pytest.mark.parametrize("second", ["Bearer credential", "Bearer another"])
async def test_what_decides_something_is_refused_when_it_is_given_twice(
    interceptor: HandlerInterceptor, key: str, second: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await call(interceptor, BEARER, (key, "Bearer credential"), ("other", "1"), (key, second))
    violations = [(one.field, one.description) for one in caught.value.violations]
    assert (key, "must be given once") in violations


async def test_what_decides_nothing_may_be_given_twice() -> None:
    given = [BEARER, (CALLER_KEY, "key:1"), (USER_KEY, "ann"), ("other", "1"), ("other", "2")]
    caller = await call(ACCESS, *given)
    assert (caller.id, caller.user_id) == ("key:1", "ann")
