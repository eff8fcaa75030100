"""The settings of every service, by the name of its workload."""

from chat_gateway.settings import GatewaySettings
from config_svc.settings import ConfigSettings
from servicekit.settings import ServiceSettings
from session_svc.settings import SessionSettings

CLASSES: dict[str, type[ServiceSettings]] = {
    "config-svc": ConfigSettings,
    "session-svc": SessionSettings,
    "chat-gateway": GatewaySettings,
}


def names_of(settings: type[ServiceSettings]) -> set[str]:
    """Return the environment variables that a service reads."""
    return set(settings.variables().values())
