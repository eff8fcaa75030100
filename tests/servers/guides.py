"""Programs that stand in documents, as they are written there but for where the servers are."""

import re
from pathlib import Path

from tests.servers.mock_model import MODEL
from tests.servers.system import PROVIDER, System

DOCS = Path(__file__).resolve().parents[2] / "docs"


def programs(page: str, section: str, language: str, system: System, **names: str) -> list[str]:
    """Return the programs of a page's section in one language, for a running system.

    What they call an agent or a session is replaced by `names`, since a system is shared by many tests.
    """
    text = (DOCS / page).read_text("utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    replaced = {
        "127.0.0.1:50051": system.grpc_target,
        "127.0.0.1:50052": system.config.grpc_target,
        "127.0.0.1:50053": system.session.grpc_target,
        '"local"': f'"{PROVIDER}"',
        '"smollm2-135m-instruct"': f'"{MODEL}"',
        **{f'"{name}"': f'"{other}"' for name, other in names.items()},
        **{f"'{name}'": f"'{other}'" for name, other in names.items()},
    }
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [_with(program, replaced) for program in found]


def _with(program: str, replaced: dict[str, str]) -> str:
    for old, new in replaced.items():
        program = program.replace(old, new)
    return program
