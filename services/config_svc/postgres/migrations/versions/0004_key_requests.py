"""What requests that come with an API key get where they say nothing."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_EXPAND = """
ALTER TABLE api_keys ADD COLUMN requests jsonb;
"""


def upgrade() -> None:
    op.execute(_EXPAND)
