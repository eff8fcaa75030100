"""What a program does with the client that openapi-python-client generates: python generated_python.py URL KEY AGENT.

Runs in the environment of the clients, where nothing of Parley is; `parley_generated` is the generated package.
"""

import json
import sys

from parley_generated import AuthenticatedClient
from parley_generated.api.agents import create_agent, delete_agent, get_agent, list_agents, patch_agent, replace_agent
from parley_generated.api.agents import list_revisions as revisions_of
from parley_generated.api.api_keys import create_api_key, get_api_key, revoke_api_key
from parley_generated.api.audit import list_audit
from parley_generated.api.chat import create_chat_completion
from parley_generated.api.models import list_models
from parley_generated.api.process import readyz
from parley_generated.api.sessions import delete_session, fork_session, get_session, list_messages, list_sessions
from parley_generated.api.templates import list_templates
from parley_generated.api.users import export_user
from parley_generated.models import (
    Agent,
    AgentInput,
    AgentInputLabelsType0,
    AgentPatch,
    ChatCompletionRequest,
    ChatMessage,
    ChatMessageRole,
    ErrorBody,
    ForkBody,
    Memory,
    Model,
    NewApiKey,
    NewApiKeyScopesItem,
    User,
)

url, key, agent_id = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key)

model = Model(provider="mock", name="mock-model", temperature=0.5)
labels = AgentInputLabelsType0.from_dict({"team": "cx"})
made = create_agent.sync(
    client=client,
    body=AgentInput(id=agent_id, name="Generated", instructions="You are a test.", model=model, labels=labels),
)
assert isinstance(made, Agent), made
assert (made.id, made.revision, made.labels.to_dict()) == (agent_id, 1, {"team": "cx"})
assert made.model.temperature == 0.5

read = get_agent.sync(agent_id, client=client)
assert isinstance(read, Agent)
assert read.to_dict() == made.to_dict()
patched = patch_agent.sync(agent_id, client=client, body=AgentPatch(memory=Memory(max_messages=10), name=None))
assert isinstance(patched, Agent), patched
assert (patched.revision, patched.name, patched.instructions) == (2, "", "You are a test.")
replaced = replace_agent.sync(
    agent_id,
    client=client,
    body=AgentInput(name="Replaced", instructions="You are a test.", model=model, labels=labels),
)
assert isinstance(replaced, Agent), replaced
assert (replaced.revision, replaced.name, replaced.labels.to_dict()) == (3, "Replaced", {"team": "cx"})
refused = create_agent.sync(client=client, body=AgentInput(id=agent_id, model=model))
assert isinstance(refused, ErrorBody)
assert refused.error.code == "agent_already_exists"
assert [agent.id for agent in list_agents.sync(client=client, filter_="labels.team=cx").data] == [agent_id]
assert [one.revision for one in revisions_of.sync(agent_id, client=client).data] == [3, 2, 1]
assert agent_id in [card.id for card in list_models.sync(client=client).data]
assert "assistant" in [template.id for template in list_templates.sync(client=client).data]
assert readyz.sync(client=client).ready

session_id, user_id = f"s-{agent_id}", f"u-{agent_id}"
asked = ChatCompletionRequest(
    model=agent_id,
    messages=[ChatMessage(role=ChatMessageRole.USER, content="hi there")],
    session_id=session_id,
    user_id=user_id,
)
answer = create_chat_completion.sync(client=client, body=asked)
assert answer.choices[0].message.content.endswith("hi there"), answer
assert answer.usage.total_tokens > 0

session = get_session.sync(session_id, client=client)
assert (session.agent_id, session.turn_count, session.user_id) == (agent_id, 1, user_id)
assert [one.role for one in list_messages.sync(session_id, client=client).data] == ["user", "assistant"]
fork = fork_session.sync(session_id, client=client, body=ForkBody())
assert fork.turn_count == 1
assert {one.id for one in list_sessions.sync(client=client, user_id=user_id).data} == {session_id, fork.id}
lines = [json.loads(line) for line in export_user.sync(client=client, body=User(user_id=user_id)).splitlines()]
assert [line["object"] for line in lines].count("session.message") == 4
assert delete_session.sync_detailed(session_id, client=client).status_code == 204

new = create_api_key.sync(client=client, body=NewApiKey(scopes=[NewApiKeyScopesItem.CHAT]))
assert new.key.startswith("parley_")
assert get_api_key.sync(new.id, client=client).scopes == ["chat"]
assert revoke_api_key.sync_detailed(new.id, client=client).status_code == 204
assert "api_keys.revoke" in [
    event.action for event in list_audit.sync(client=client, resource=f"api_keys/{new.id}").data
]
assert delete_agent.sync_detailed(agent_id, client=client).status_code == 204
print("done")
