"""The tables as queries see them; `migrations` makes them."""

from sqlalchemy import BigInteger, Column, Integer, MetaData, SmallInteger, Table, Text, Uuid
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
    Column("agent_id", Text, nullable=False),
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
