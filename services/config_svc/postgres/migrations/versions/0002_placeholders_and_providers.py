"""What templates fill placeholders with, and the providers that gateways have."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_EXPAND = """
ALTER TABLE templates ADD COLUMN placeholders jsonb;

CREATE TABLE gateway_providers (
    gateway uuid PRIMARY KEY,
    providers jsonb NOT NULL,
    expire_time timestamptz NOT NULL
);
CREATE INDEX gateway_providers_by_expire_time ON gateway_providers (expire_time);
"""


def upgrade() -> None:
    op.execute(_EXPAND)
