"""RuntimeService over this process' instances and scheduler."""

from typing import Any

from chat_gateway.convert.times import to_timestamp
from chat_gateway.instances import InstanceInfo, Instances
from chat_gateway.model.tools import GatewayTool
from chat_gateway.ports import ToolServerTests
from chat_gateway.scheduler import Scheduler
from contract.fields import DEFAULT_PROJECT
from parley.chat.v1 import runtime_service_pb2 as pb
from parley.chat.v1 import runtime_service_pb2_grpc
from servicekit.errors import InvalidArgument, Violation

MAX_PAGE = 1000


class RuntimeServicer(runtime_service_pb2_grpc.RuntimeServiceServicer):
    """Serves `parley.chat.v1.RuntimeService`."""

    def __init__(self, instances: Instances, scheduler: Scheduler, tool_servers: ToolServerTests) -> None:
        self._instances = instances
        self._scheduler = scheduler
        self._tool_servers = tool_servers

    async def ListInstances(self, request: pb.ListInstancesRequest, context: Any) -> pb.ListInstancesResponse:  # noqa: N802
        """Lists instances; see the proto."""
        found = self._instances.list(request.project or DEFAULT_PROJECT, request.agent_id)
        size = min(request.page_size or MAX_PAGE, MAX_PAGE)
        return pb.ListInstancesResponse(instances=[_instance(info) for info in found[:size]])

    async def EvictInstances(self, request: pb.EvictInstancesRequest, context: Any) -> pb.EvictInstancesResponse:  # noqa: N802
        """Drops instances; see the proto."""
        count = self._instances.evict(request.project or DEFAULT_PROJECT, request.agent_id)
        return pb.EvictInstancesResponse(evicted_count=count)

    async def GetLoad(self, request: pb.GetLoadRequest, context: Any) -> pb.GetLoadResponse:  # noqa: N802
        """Says how busy this process is; see the proto."""
        load = self._scheduler.load
        return pb.GetLoadResponse(
            running_turns=load.running,
            max_running_turns=load.limits.running,
            queued_turns=load.queued,
            max_queued_turns=load.limits.queued,
            instances=len(self._instances),
        )

    async def TestToolServer(self, request: pb.TestToolServerRequest, context: Any) -> pb.TestToolServerResponse:  # noqa: N802
        """Connects to a tool server and lists its tools; see the proto."""
        if not request.id:
            raise InvalidArgument([Violation("id", "is required")])
        outcome = await self._tool_servers.test(request.project or DEFAULT_PROJECT, request.id)
        return pb.TestToolServerResponse(
            tools=[_offered(tool) for tool in outcome.tools],
            problem=outcome.problem,
            left_out_count=outcome.left_out,
        )


def _offered(tool: GatewayTool) -> pb.OfferedTool:
    message = pb.OfferedTool(name=tool.name, description=tool.description, idempotent=tool.idempotent)
    message.parameters.update(tool.parameters)
    return message


def _instance(info: InstanceInfo) -> pb.Instance:
    return pb.Instance(
        project=info.project,
        agent_id=info.agent_id,
        agent_uid=info.agent_uid,
        agent_revision=info.agent_revision,
        template_id=info.template_id,
        build_time=to_timestamp(info.build_time),
        last_used_time=to_timestamp(info.last_used_time),
        turn_count=info.turn_count,
    )
