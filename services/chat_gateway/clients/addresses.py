"""The addresses behind a name, one for each replica."""

import asyncio
import socket


async def addresses_of(host: str, port: int) -> list[str]:
    """Returns `address:port` for each address of a name, in order; none where the name is not known.

    Of one family, since what has both is one replica and not two: IPv4, and IPv6 where there is no other.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    four = {f"{entry[4][0]}:{port}" for entry in found if entry[0] is socket.AF_INET}
    six = {f"[{entry[4][0]}]:{port}" for entry in found if entry[0] is socket.AF_INET6}
    return sorted(four or six)
