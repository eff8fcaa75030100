"""Every method that the contract calls audited leaves an event in the audit log, in both services that have some."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from access.authenticator import peer_credential
from access.rules import rules_of
from parley.config.v1 import access_service_pb2 as access_pb
from parley.config.v1 import agent_config_pb2, provider_service_pb2
from parley.config.v1 import agent_config_service_pb2 as agents_pb
from parley.config.v1 import template_service_pb2 as templates_pb
from parley.config.v1 import tool_server_service_pb2 as tools_pb
from parley.session.v1 import message_pb2, turn_service_pb2
from parley.session.v1 import session_service_pb2 as sessions_pb
from tests.servers.mock_model import MODEL
from tests.servers.system import PROVIDER, System


def services(*modules: Any) -> tuple[str, ...]:
    return tuple(one.full_name for module in modules for one in module.DESCRIPTOR.services_by_name.values())


CONFIG = services(agents_pb, templates_pb, provider_service_pb2, access_pb, tools_pb)
SESSION = services(sessions_pb, turn_service_pb2)
AUDITED = sorted(method for method, rule in rules_of((*CONFIG, *SESSION)).items() if rule.audited)


class World:
    """A project with an agent, a session and a key, and what calls need to name them."""

    def __init__(self, system: System) -> None:
        self._operator = system.operator_key
        self._channels = {
            service: grpc.insecure_channel(target)
            for target, services in ((system.config.grpc_target, CONFIG), (system.session.grpc_target, SESSION))
            for service in services
        }
        self.project = f"p{uuid4().hex[:12]}"
        self.template = uuid4().hex[:8]
        self.call("AccessService/CreateProject", access_pb.CreateProjectRequest(project={"id": self.project}))
        self.create_agent("a1")
        self.create_agent("a2")
        self.uid = self.call(
            "AgentConfigService/GetAgentConfig", agents_pb.GetAgentConfigRequest(project=self.project, id="a1")
        ).agent_config.uid
        self.call("AgentConfigService/UpdateAgentConfig", self.renamed("a1", "Second"))
        deleted = agents_pb.DeleteAgentConfigRequest(project=self.project, id="a2")
        self.deleted_uid = self.call("AgentConfigService/DeleteAgentConfig", deleted).agent_config.uid
        self.key_id = self.create_key().api_key.id
        self.create_key(user_id="ann")
        self._session_when_recorded()
        self.turn_id = self.commit_turn("s1")
        self.call("ToolServerService/CreateToolServer", self.tool_server("t1"))

    def close(self) -> None:
        for channel in set(self._channels.values()):
            channel.close()

    def call(self, name: str, request: Message, *, as_service: str = "") -> Any:
        """Calls a method, by its service and name, as the operator or as another service of Parley."""
        method = name if name.startswith("/") else next(m for m in METHODS if m.endswith(f".{name}"))
        service, _, rpc = method[1:].rpartition("/")
        descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[rpc]
        reply = message_factory.GetMessageClass(descriptor.output_type)
        credential = peer_credential(self._operator, as_service) if as_service else self._operator
        unary = self._channels[service].unary_unary(
            method, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
        )
        return unary(request, timeout=30, metadata=(("authorization", f"Bearer {credential}"),))

    def events(self, project: str) -> list[str]:
        """Returns the ids of all events of a project."""
        found: list[str] = []
        request = access_pb.ListAuditEventsRequest(project=project, page_size=1000)
        while True:
            page = self.call("AccessService/ListAuditEvents", request)
            found += [event.id for event in page.audit_events]
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def agent(self, agent_id: str, name: str = "First") -> agent_config_pb2.AgentConfig:
        model = agent_config_pb2.ModelConfig(provider=PROVIDER, name=MODEL)
        return agent_config_pb2.AgentConfig(id=agent_id, display_name=name, template_id="assistant", model=model)

    def create_agent(self, agent_id: str) -> None:
        agent = agents_pb.CreateAgentConfigRequest(project=self.project, agent_config=self.agent(agent_id))
        self.call("AgentConfigService/CreateAgentConfig", agent)

    def renamed(self, agent_id: str, name: str) -> agents_pb.UpdateAgentConfigRequest:
        return agents_pb.UpdateAgentConfigRequest(
            project=self.project, agent_config=self.agent(agent_id, name), update_mask=FieldMask(paths=["display_name"])
        )

    def tool_server(self, server_id: str) -> tools_pb.CreateToolServerRequest:
        server = {"id": server_id, "mcp": {"url": "https://mcp.example/mcp"}}
        return tools_pb.CreateToolServerRequest(project=self.project, tool_server=server)

    def create_key(self, user_id: str = "") -> access_pb.CreateApiKeyResponse:
        key = access_pb.ApiKey(project=self.project, display_name="k", scopes=["chat"], user_id=user_id)
        return self.call("AccessService/CreateApiKey", access_pb.CreateApiKeyRequest(api_key=key))

    def _session_when_recorded(self) -> None:
        # Nothing is written unrecorded, and session_svc's way to config_svc is made with its first record.
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.create_session("s1")
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def create_session(self, session_id: str) -> None:
        self.call("SessionService/CreateSession", self.new_session(session_id))

    def commit_turn(self, session_id: str) -> str:
        begin = turn_service_pb2.BeginTurnRequest(
            project=self.project, session_id=session_id, agent_id="a1", agent_uid=self.uid, user_id="ann", turn_id="t1"
        )
        lease = self.call("TurnService/BeginTurn", begin, as_service="chat_gateway").lease
        turn = message_pb2.Turn(id="t1", begin_time=lease.expire_time, finish_reason="FINISH_REASON_STOP")
        turn.messages.add(role=message_pb2.ROLE_ASSISTANT, content="Hi")
        commit = turn_service_pb2.CommitTurnRequest(lease=lease, turn=turn)
        self.call("TurnService/CommitTurn", commit, as_service="chat_gateway")
        return turn.id

    def new_session(self, session_id: str) -> sessions_pb.CreateSessionRequest:
        session = sessions_pb.Session(id=session_id, agent_id="a1", agent_uid=self.uid, user_id="ann")
        return sessions_pb.CreateSessionRequest(project=self.project, session=session)

    def request(self, method: str) -> Message:
        """Returns a call of the method that changes something."""
        project, hour = self.project, Duration()
        hour.FromTimedelta(timedelta(hours=1))
        schema = Struct()
        schema.update({"type": "object"})
        requests: dict[str, Message] = {
            "CreateAgentConfig": agents_pb.CreateAgentConfigRequest(project=project, agent_config=self.agent("a3")),
            "UpdateAgentConfig": self.renamed("a1", "Third"),
            "DeleteAgentConfig": agents_pb.DeleteAgentConfigRequest(project=project, id="a1"),
            "UndeleteAgentConfig": agents_pb.UndeleteAgentConfigRequest(project=project, uid=self.deleted_uid),
            "RollbackAgentConfig": agents_pb.RollbackAgentConfigRequest(project=project, id="a1", revision=1),
            "PublishTemplate": templates_pb.PublishTemplateRequest(
                template=templates_pb.Template(id=f"t{self.template}", version="1.0.0", parameters_schema=schema)
            ),
            "CreateProject": access_pb.CreateProjectRequest(project={"id": f"{project}-b"}),
            "DeleteProject": access_pb.DeleteProjectRequest(id=project),
            "CreateApiKey": access_pb.CreateApiKeyRequest(
                api_key=access_pb.ApiKey(project=project, display_name="k", scopes=["chat"])
            ),
            "RevokeApiKey": access_pb.RevokeApiKeyRequest(project=project, id=self.key_id),
            "RotateApiKey": access_pb.RotateApiKeyRequest(project=project, id=self.key_id, overlap=hour),
            "RevokeUserApiKeys": access_pb.RevokeUserApiKeysRequest(project=project, user_id="ann"),
            "CreateSession": self.new_session("s2"),
            "UpdateSession": sessions_pb.UpdateSessionRequest(
                project=project,
                session=sessions_pb.Session(id="s1", metadata={"a": "b"}),
                update_mask=FieldMask(paths=["metadata"]),
            ),
            "DeleteSession": sessions_pb.DeleteSessionRequest(project=project, id="s1"),
            "DeleteTurn": sessions_pb.DeleteTurnRequest(project=project, session_id="s1", turn_id=self.turn_id),
            "DeleteSessions": sessions_pb.DeleteSessionsRequest(project=project, user_id="ann"),
            "ForkSession": sessions_pb.ForkSessionRequest(project=project, session_id="s1"),
            "CreateToolServer": self.tool_server("t2"),
            "UpdateToolServer": tools_pb.UpdateToolServerRequest(
                project=project, tool_server={"id": "t1", "display_name": "x"}
            ),
            "DeleteToolServer": tools_pb.DeleteToolServerRequest(project=project, id="t1"),
            "EraseUser": sessions_pb.EraseUserRequest(project=project, user_id="ann"),
        }
        return requests[method.rpartition("/")[2]]


METHODS = sorted(rules_of((*CONFIG, *SESSION)))
BY_SERVICES = {"PublishTemplate": "chat_gateway", "RevokeUserApiKeys": "session_svc"}
PROJECTS = {"PublishTemplate": "default", "CreateProject": "{}-b"}
"""Where the event stands, if not in the project of the test."""


@pytest.fixture(scope="module")
def worlds(guarded_system: System) -> Iterator[list[World]]:
    made: list[World] = []
    yield made
    for world in made:
        world.close()


@pytest.mark.parametrize("method", AUDITED)
def test_an_audited_method_leaves_an_event(method: str, guarded_system: System, worlds: list[World]) -> None:
    world = World(guarded_system)
    worlds.append(world)
    rpc = method.rpartition("/")[2]
    project = PROJECTS.get(rpc, world.project).format(world.project)
    before = set() if rpc == "CreateProject" else set(world.events(project))
    world.call(method, world.request(method), as_service=BY_SERVICES.get(rpc, ""))
    assert set(world.events(project)) - before
