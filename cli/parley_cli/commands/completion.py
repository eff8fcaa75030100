"""What the shell offers for an argument."""

from parley_cli.api import Api, path_of
from parley_cli.errors import LocalError

MAX_OFFERED = 100
SECONDS = 2.0


def agent_ids(incomplete: str) -> list[str]:
    """Returns ids of agents that begin so, in the key's own project; none where the server does not say."""
    try:
        with Api(timeout=SECONDS) as api:
            rows, _ = api.list_first(path_of("agents"), 10 * MAX_OFFERED)
    except LocalError:
        return []
    return [id for row in rows if (id := str(row.get("id", ""))).startswith(incomplete)][:MAX_OFFERED]
