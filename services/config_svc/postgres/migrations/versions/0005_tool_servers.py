"""Tool servers and their revisions, and an index of what agent configs say of tools.

Expands only. A project that the release before deletes takes its tool servers along by the foreign key.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TOOL_SERVERS = """
CREATE TABLE tool_servers (
    uid uuid PRIMARY KEY,
    project text COLLATE "C" NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    id text COLLATE "C" NOT NULL,
    spec jsonb NOT NULL,
    revision bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT tool_servers_id UNIQUE (project, id)
);
CREATE INDEX tool_servers_by_create_time ON tool_servers (project, create_time, uid);
CREATE INDEX tool_servers_by_update_time ON tool_servers (project, update_time, uid);

CREATE TABLE tool_server_revisions (
    uid uuid NOT NULL REFERENCES tool_servers (uid) ON DELETE CASCADE,
    number bigint NOT NULL,
    spec jsonb NOT NULL,
    create_time timestamptz NOT NULL,
    author text NOT NULL,
    comment text NOT NULL,
    changed_fields text[] NOT NULL,
    PRIMARY KEY (uid, number)
);
CREATE INDEX tool_server_revisions_by_author ON tool_server_revisions (author) WHERE author <> '';

CREATE TABLE tool_server_claims (
    project text COLLATE "C" NOT NULL,
    request_id uuid NOT NULL,
    fingerprint text NOT NULL,
    uid uuid NOT NULL REFERENCES tool_servers ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    tool_server_id text NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (project, request_id)
);
CREATE INDEX tool_server_claims_by_uid ON tool_server_claims (uid);
CREATE INDEX tool_server_claims_by_create_time ON tool_server_claims (create_time);

CREATE INDEX agent_configs_by_tools ON agent_configs USING gin ((spec -> 'tools') jsonb_path_ops)
    WHERE delete_time IS NULL;
"""


def upgrade() -> None:
    op.execute(_TOOL_SERVERS)
