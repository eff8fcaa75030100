"""Agent configs, revisions, claims, the change feed, templates.

The numbers of the feed are given by a trigger that first takes an advisory lock, which PostgreSQL releases only after
the commit is visible to everybody: a larger number is a later commit, and whoever sees it sees all smaller ones.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE agent_configs (
    uid uuid PRIMARY KEY,
    project text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    spec jsonb NOT NULL,
    revision bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    delete_time timestamptz,
    purge_time timestamptz,
    CHECK ((delete_time IS NULL) = (purge_time IS NULL))
);
CREATE UNIQUE INDEX agent_configs_live_id ON agent_configs (project, id) WHERE delete_time IS NULL;
CREATE INDEX agent_configs_by_id ON agent_configs (project, id, uid);
CREATE INDEX agent_configs_by_create_time ON agent_configs (project, create_time, uid);
CREATE INDEX agent_configs_by_update_time ON agent_configs (project, update_time, uid);
CREATE INDEX agent_configs_by_purge_time ON agent_configs (purge_time) WHERE purge_time IS NOT NULL;

CREATE TABLE agent_config_revisions (
    uid uuid NOT NULL REFERENCES agent_configs ON DELETE CASCADE,
    number bigint NOT NULL,
    spec jsonb NOT NULL,
    create_time timestamptz NOT NULL,
    author text NOT NULL,
    comment text NOT NULL,
    changed_fields text[] NOT NULL,
    PRIMARY KEY (uid, number)
);

CREATE TABLE agent_config_claims (
    project text COLLATE "C" NOT NULL,
    request_id uuid NOT NULL,
    fingerprint text NOT NULL,
    uid uuid NOT NULL REFERENCES agent_configs ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    agent_id text NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (project, request_id)
);
CREATE INDEX agent_config_claims_by_uid ON agent_config_claims (uid);
CREATE INDEX agent_config_claims_by_create_time ON agent_config_claims (create_time);

CREATE TABLE templates (
    id text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    major integer NOT NULL,
    minor integer NOT NULL,
    patch integer NOT NULL,
    description text NOT NULL,
    parameters_schema jsonb NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (id, version)
);
CREATE UNIQUE INDEX templates_by_order ON templates (id, major DESC, minor DESC, patch DESC);
"""

_FEED = """
CREATE TABLE feed (
    id uuid PRIMARY KEY,
    compacted bigint NOT NULL,
    only_one boolean NOT NULL DEFAULT true UNIQUE CHECK (only_one)
);
INSERT INTO feed (id, compacted) VALUES (gen_random_uuid(), 0);

CREATE TABLE agent_config_changes (
    sequence bigint PRIMARY KEY,
    type smallint NOT NULL,
    agent_config jsonb NOT NULL,
    time timestamptz NOT NULL
);
CREATE INDEX agent_config_changes_by_time ON agent_config_changes (time);
CREATE SEQUENCE agent_config_changes_sequence OWNED BY agent_config_changes.sequence;

CREATE FUNCTION number_agent_config_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('parley/config/feed', 0));
    NEW.sequence := nextval('agent_config_changes_sequence');
    PERFORM pg_notify('parley_config_changes', '');
    RETURN NEW;
END
$$;
CREATE TRIGGER number_agent_config_change BEFORE INSERT ON agent_config_changes
    FOR EACH ROW EXECUTE FUNCTION number_agent_config_change();
"""


def upgrade() -> None:
    op.execute(_TABLES)
    op.execute(_FEED)
