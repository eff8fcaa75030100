"""Projects, API keys, the audit log.

Expands only. The release before knows of none of it and goes on writing agent configs: a trigger makes the project that
such a write names, so that every agent config has one whoever wrote it. A release that no longer runs beside 0002 can
drop the trigger: since 0003, agent configs are created only under a lock of a project that is there.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_PROJECTS = """
CREATE TABLE projects (
    id text COLLATE "C" PRIMARY KEY,
    uid uuid NOT NULL UNIQUE,
    display_name text NOT NULL,
    create_time timestamptz NOT NULL,
    delete_time timestamptz,
    first_change bigint NOT NULL DEFAULT 0
);
CREATE INDEX projects_in_deletion ON projects (id) WHERE delete_time IS NOT NULL;
INSERT INTO projects (id, uid, display_name, create_time) VALUES ('default', gen_random_uuid(), '', now());
INSERT INTO projects (id, uid, display_name, create_time)
    SELECT project, gen_random_uuid(), '', min(create_time) FROM agent_configs GROUP BY project
    ON CONFLICT DO NOTHING;

CREATE FUNCTION have_project() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        PERFORM FROM projects WHERE id = NEW.project FOR KEY SHARE;
        EXIT WHEN FOUND;
        INSERT INTO projects (id, uid, display_name, create_time)
            VALUES (NEW.project, gen_random_uuid(), '', now()) ON CONFLICT DO NOTHING;
    END LOOP;
    RETURN NULL;
END
$$;
CREATE TRIGGER have_project AFTER INSERT ON agent_configs FOR EACH ROW EXECUTE FUNCTION have_project();
CREATE INDEX agent_config_revisions_by_author ON agent_config_revisions (author) WHERE author <> '';
"""

_API_KEYS = """
CREATE TABLE access_secrets (
    name text PRIMARY KEY,
    value bytea NOT NULL
);

CREATE TABLE api_keys (
    id text COLLATE "C" PRIMARY KEY,
    project text COLLATE "C" NOT NULL,
    project_uid uuid NOT NULL,
    hash bytea NOT NULL UNIQUE,
    scopes text[] NOT NULL,
    user_id text NOT NULL,
    display_name text NOT NULL,
    requests_per_minute integer NOT NULL,
    concurrent_turns integer NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz,
    revoke_time timestamptz,
    last_used_time timestamptz
);
CREATE INDEX api_keys_by_create_time ON api_keys (project_uid, create_time, id);
CREATE INDEX api_keys_by_end ON api_keys (least(expire_time, revoke_time))
    WHERE least(expire_time, revoke_time) IS NOT NULL;

CREATE TABLE api_key_changes (
    sequence bigint PRIMARY KEY,
    api_key_id text NOT NULL,
    time timestamptz NOT NULL
);
CREATE INDEX api_key_changes_by_time ON api_key_changes (time);
CREATE SEQUENCE api_key_changes_sequence OWNED BY api_key_changes.sequence;

CREATE FUNCTION number_api_key_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('parley/config/api_keys', 0));
    NEW.sequence := nextval('api_key_changes_sequence');
    PERFORM pg_notify('parley_config_api_keys', '');
    RETURN NEW;
END
$$;
CREATE TRIGGER number_api_key_change BEFORE INSERT ON api_key_changes
    FOR EACH ROW EXECUTE FUNCTION number_api_key_change();
"""

_AUDIT = """
CREATE TABLE audit_events (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid UNIQUE,
    project text COLLATE "C" NOT NULL,
    project_uid uuid,
    actor text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    resource text COLLATE "C" NOT NULL,
    time timestamptz NOT NULL,
    before jsonb,
    after jsonb,
    request_id text NOT NULL,
    source text NOT NULL,
    user_id text NOT NULL,
    subjects text[] NOT NULL
);
CREATE INDEX audit_events_by_time ON audit_events (project, time, sequence);
CREATE INDEX audit_events_by_actor ON audit_events (project, actor, time, sequence);
CREATE INDEX audit_events_by_resource ON audit_events (project, resource, time, sequence);
CREATE INDEX audit_events_by_age ON audit_events (time);
CREATE INDEX audit_events_by_subject ON audit_events USING gin (subjects);

CREATE FUNCTION keep_audit_events() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    allowed text := coalesce(current_setting('parley.audit', true), '');
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF allowed = 'retention' THEN
            RETURN OLD;
        END IF;
    ELSIF TG_OP = 'UPDATE' THEN
        IF allowed = 'erasure'
            AND (NEW.sequence, NEW.project, NEW.action, NEW.time, NEW.request_id, NEW.source)
              = (OLD.sequence, OLD.project, OLD.action, OLD.time, OLD.request_id, OLD.source)
            AND NEW.event_id IS NOT DISTINCT FROM OLD.event_id
            AND NEW.project_uid IS NOT DISTINCT FROM OLD.project_uid
        THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only: % is refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER keep_audit_events BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION keep_audit_events();
CREATE TRIGGER keep_all_audit_events BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION keep_audit_events();

CREATE FUNCTION erase_in_audit_event(
    erased bigint, new_actor text, new_resource text, new_user_id text, new_subjects text[],
    new_before jsonb, new_after jsonb
) RETURNS void LANGUAGE sql SET parley.audit = 'erasure' AS $$
    UPDATE audit_events SET actor = new_actor, resource = new_resource, user_id = new_user_id,
        subjects = new_subjects, before = new_before, after = new_after
    WHERE sequence = erased
$$;

CREATE FUNCTION remove_old_audit_events(older_than timestamptz, most integer) RETURNS bigint
LANGUAGE sql SET parley.audit = 'retention' AS $$
    WITH old AS (
        SELECT sequence FROM audit_events WHERE time < older_than ORDER BY time LIMIT most FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM audit_events WHERE sequence IN (SELECT sequence FROM old) RETURNING 1
    )
    SELECT count(*) FROM gone
$$;
"""


def upgrade() -> None:
    op.execute(_PROJECTS)
    op.execute(_API_KEYS)
    op.execute(_AUDIT)
