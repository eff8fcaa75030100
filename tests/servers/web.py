"""What a port for metrics and readiness answers."""

import asyncio
import urllib.request


async def read(port: int, path: str) -> str:
    """Return the body of a path on this machine; raises urllib.error.HTTPError for a refusal."""

    def fetch() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            text: str = answer.read().decode()
            return text

    return await asyncio.to_thread(fetch)
