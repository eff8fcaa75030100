"""Publishes to config_svc which templates this gateway can build."""

from collections.abc import Iterable

import structlog
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from chat_gateway.agents.template import Template
from chat_gateway.clients.stubs import CONFIG_SVC, Stubs
from contract.reasons import Reason
from parley.config.v1 import template_service_pb2
from servicekit.backoff import Backoff
from servicekit.channels import call
from servicekit.errors import ServiceError

log = structlog.get_logger(__name__)

_TIMEOUT = 5.0
_FIRST_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 2.0


async def publish_templates(stubs: Stubs, templates: Iterable[Template]) -> None:
    """Publishes every template, retrying while config_svc is unavailable. Idempotent. A version already published with
    other content (by another build of this gateway) is logged and kept.
    """
    for template in templates:
        await _publish(stubs, template)


async def _publish(stubs: Stubs, template: Template) -> None:
    message = template_service_pb2.Template(
        id=template.id,
        version=template.version,
        description=template.description,
        parameters_schema=ParseDict(dict(template.parameters_schema), Struct()),
    )
    if template.placeholders is not None:
        message.placeholders.parameters = template.placeholders.parameters
        message.placeholders.session_metadata = template.placeholders.session_metadata
        message.placeholders.names.extend(template.placeholders.names)
    request = template_service_pb2.PublishTemplateRequest(template=message)
    async for _ in Backoff(_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS):
        try:
            await call(stubs.templates.PublishTemplate, request, timeout=_TIMEOUT, peer=CONFIG_SVC)
        except ServiceError as error:
            if error.reason in (Reason.TEMPLATE_CONFLICT, Reason.INVALID_FIELD):
                log.error("template_not_published", template_id=template.id, reason=error.reason, message=error.message)
                return
        else:
            log.info("template_published", template_id=template.id, version=template.version)
            return
