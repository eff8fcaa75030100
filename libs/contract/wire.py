"""The protobuf numbers of the contract's enumerations."""

from contract.enums import BusyPolicy, FallbackTrigger, HistoryPolicy, Role
from parley.config.v1 import agent_config_pb2
from parley.errors.v1 import reason_pb2  # noqa: F401 - so that reflection can describe the reasons of errors
from parley.session.v1 import message_pb2, turn_service_pb2

ROLE_NUMBERS = {
    Role.SYSTEM: message_pb2.ROLE_SYSTEM,
    Role.USER: message_pb2.ROLE_USER,
    Role.ASSISTANT: message_pb2.ROLE_ASSISTANT,
    Role.TOOL: message_pb2.ROLE_TOOL,
}
ROLES = {int(number): role for role, number in ROLE_NUMBERS.items()}

BUSY_POLICY_NUMBERS = {
    BusyPolicy.WAIT: turn_service_pb2.BUSY_POLICY_WAIT,
    BusyPolicy.REJECT: turn_service_pb2.BUSY_POLICY_REJECT,
    BusyPolicy.INTERRUPT: turn_service_pb2.BUSY_POLICY_INTERRUPT,
}
BUSY_POLICIES = {
    int(turn_service_pb2.BUSY_POLICY_UNSPECIFIED): BusyPolicy.WAIT,
    **{int(number): policy for policy, number in BUSY_POLICY_NUMBERS.items()},
}
"""Other numbers are from a later release and mean the default, to wait."""

FALLBACK_TRIGGER_NUMBERS = {
    FallbackTrigger.CONTENT_FILTER: agent_config_pb2.FALLBACK_TRIGGER_CONTENT_FILTER,
    FallbackTrigger.CONTEXT_LENGTH: agent_config_pb2.FALLBACK_TRIGGER_CONTEXT_LENGTH,
}
FALLBACK_TRIGGERS = {int(number): trigger for trigger, number in FALLBACK_TRIGGER_NUMBERS.items()}

HISTORY_POLICY_NUMBERS = {
    HistoryPolicy.MATCH: agent_config_pb2.HISTORY_POLICY_MATCH,
    HistoryPolicy.REPLACE: agent_config_pb2.HISTORY_POLICY_REPLACE,
    HistoryPolicy.APPEND: agent_config_pb2.HISTORY_POLICY_APPEND,
}
"""The same in `parley.config.v1` and `parley.chat.v1`."""
HISTORY_POLICIES = {int(number): policy for policy, number in HISTORY_POLICY_NUMBERS.items()}
