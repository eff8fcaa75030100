"""The tables as queries see them; `postgres/migrations` makes them."""

from sqlalchemy import BigInteger, Column, Identity, Integer, LargeBinary, MetaData, SmallInteger, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

metadata = MetaData()

_TIME = TIMESTAMP(timezone=True)

agent_configs = Table(
    "agent_configs",
    metadata,
    Column("uid", Uuid(as_uuid=False), primary_key=True),
    Column("project", Text(collation="C"), nullable=False),
    Column("id", Text(collation="C"), nullable=False),
    Column("spec", JSONB, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("update_time", _TIME, nullable=False),
    Column("delete_time", _TIME),
    Column("purge_time", _TIME),
)

agent_config_revisions = Table(
    "agent_config_revisions",
    metadata,
    Column("uid", Uuid(as_uuid=False), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("spec", JSONB, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("author", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("changed_fields", ARRAY(Text), nullable=False),
)

agent_config_claims = Table(
    "agent_config_claims",
    metadata,
    Column("project", Text(collation="C"), primary_key=True),
    Column("request_id", Uuid(as_uuid=False), primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("uid", Uuid(as_uuid=False), nullable=False),
    Column("agent_id", Text, key="resource_id", nullable=False),
    Column("create_time", _TIME, nullable=False),
)

agent_config_changes = Table(
    "agent_config_changes",
    metadata,
    Column("sequence", BigInteger, nullable=False),  # given by a trigger
    Column("type", SmallInteger, nullable=False),
    Column("agent_config", JSONB, nullable=False),
    Column("time", _TIME, nullable=False),
)

feed = Table(
    "feed",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("compacted", BigInteger, nullable=False),
)

templates = Table(
    "templates",
    metadata,
    Column("id", Text(collation="C"), primary_key=True),
    Column("version", Text(collation="C"), primary_key=True),
    Column("major", Integer, nullable=False),
    Column("minor", Integer, nullable=False),
    Column("patch", Integer, nullable=False),
    Column("description", Text, nullable=False),
    Column("parameters_schema", JSONB, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("placeholders", JSONB(none_as_null=True)),
)

gateway_providers = Table(
    "gateway_providers",
    metadata,
    Column("gateway", Uuid(as_uuid=False), primary_key=True),
    Column("providers", JSONB, nullable=False),
    Column("expire_time", _TIME, nullable=False),
)

tool_servers = Table(
    "tool_servers",
    metadata,
    Column("uid", Uuid(as_uuid=False), primary_key=True),
    Column("project", Text(collation="C"), nullable=False),
    Column("id", Text(collation="C"), nullable=False),
    Column("spec", JSONB, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("update_time", _TIME, nullable=False),
)

tool_server_revisions = Table(
    "tool_server_revisions",
    metadata,
    Column("uid", Uuid(as_uuid=False), primary_key=True),
    Column("number", BigInteger, primary_key=True),
    Column("spec", JSONB, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("author", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("changed_fields", ARRAY(Text), nullable=False),
)

tool_server_claims = Table(
    "tool_server_claims",
    metadata,
    Column("project", Text(collation="C"), primary_key=True),
    Column("request_id", Uuid(as_uuid=False), primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("uid", Uuid(as_uuid=False), nullable=False),
    Column("tool_server_id", Text, key="resource_id", nullable=False),
    Column("create_time", _TIME, nullable=False),
)

projects = Table(
    "projects",
    metadata,
    Column("id", Text(collation="C"), primary_key=True),
    Column("uid", Uuid(as_uuid=False), nullable=False),
    Column("display_name", Text, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("delete_time", _TIME),
    Column("first_change", BigInteger, nullable=False),
)

access_secrets = Table(
    "access_secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text(collation="C"), primary_key=True),
    Column("project", Text(collation="C"), nullable=False),
    Column("project_uid", Uuid(as_uuid=False), nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("requests_per_minute", Integer, nullable=False),
    Column("concurrent_turns", Integer, nullable=False),
    Column("create_time", _TIME, nullable=False),
    Column("expire_time", _TIME),
    Column("revoke_time", _TIME),
    Column("last_used_time", _TIME),
    Column("requests", JSONB(none_as_null=True)),
)

api_key_changes = Table(
    "api_key_changes",
    metadata,
    Column("sequence", BigInteger, nullable=False),  # given by a trigger
    Column("api_key_id", Text, nullable=False),
    Column("time", _TIME, nullable=False),
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("sequence", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Uuid(as_uuid=False)),
    Column("project", Text(collation="C"), nullable=False),
    Column("project_uid", Uuid(as_uuid=False)),
    Column("actor", Text(collation="C"), nullable=False),
    Column("action", Text(collation="C"), nullable=False),
    Column("resource", Text(collation="C"), nullable=False),
    Column("time", _TIME, nullable=False),
    Column("before", JSONB(none_as_null=True)),
    Column("after", JSONB(none_as_null=True)),
    Column("request_id", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("subjects", ARRAY(Text), nullable=False),
)
