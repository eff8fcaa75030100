"""Every RPC of every service, from the services' descriptors."""

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from chat_gateway.wiring import SERVICES as GATEWAY_SERVICES
from config_svc.wiring import SERVICES as CONFIG_SERVICES
from session_svc.wiring import SERVICES as SESSION_SERVICES


def _methods() -> list[tuple[str, MethodDescriptor]]:
    pool = descriptor_pool.Default()
    by_target = {"gateway": GATEWAY_SERVICES, "config": CONFIG_SERVICES, "session": SESSION_SERVICES}
    return [
        (target, method)
        for target, services in by_target.items()
        for service in services
        for method in pool.FindServiceByName(service).methods
    ]


METHODS = _methods()
"""Each with the service that it is asked of: `gateway`, `config` or `session`."""
