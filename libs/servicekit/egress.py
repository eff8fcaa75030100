"""Where this process may connect to on behalf of others: rules over schemes, hosts and addresses, without I/O.

Whoever connects asks twice: `check_url` before anything is resolved, and `permits` for each address that a name stands
for, at the moment of connecting. `servicekit.egress_http` does both for HTTP.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from servicekit.errors import Code, ServiceError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PUBLIC = "public"
"""The rule for public addresses over https, on any port."""

SCHEMES = {"http": 80, "https": 443}
"""Schemes that rules may allow, with their ports."""

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")
_MAX_HOST = 253

_NEVER_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # IETF protocol assignments, and metadata of Oracle's cloud
        "168.63.129.16/32",  # Azure's platform, in public space
        "192.88.99.0/24",  # relays of 6to4
        "64:ff9b:1::/48",  # NAT64 of one's own network (RFC 8215)
        "2001::/32",  # Teredo, which carries an address of IPv4
        "::/96",  # IPv4-compatible
        "fec0::/10",  # site-local
    )
)
_MAX_KNOWN, _MAX_KNOWN_CHARACTERS = 256, 512
"""URLs that were checked before, which are not parsed again: how many, and the longest."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class EgressDenied(ServiceError):
    """The operator does not allow calls to this place. Says where, and never what its name resolves to."""

    code = Code.FAILED_PRECONDITION
    reason = "EGRESS_DENIED"

    def __init__(self, place: str) -> None:
        super().__init__(
            f"calls to {place} are not allowed: the operator decides which hosts and networks are",
            metadata={"target": place},
        )


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL points: lower case, without the brackets of IPv6, the scheme's port where it names none."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The host, and the port where it is not the scheme's: what `Host` holds."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == SCHEMES.get(self.scheme) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True, slots=True)
class _Rule:
    """One entry. Exactly one of `host` and `network` is set, or neither: any public address. No port: any."""

    scheme: str
    host: str = ""
    network: Network | None = None
    port: int | None = None

    def covers(self, target: Target) -> bool:
        if self.scheme != target.scheme or self.port not in (None, target.port):
            return False
        if self.host.startswith("*."):
            return target.host.endswith(self.host[1:])
        return not self.host or self.host == target.host

    def permits(self, address: Address, inner: Address) -> bool:
        if self.network is not None:
            return any(one.version == self.network.version and one in self.network for one in (address, inner))
        if not self.host:
            return is_public(address)
        # A name must not lead to metadata services, whoever controls it; and a pattern's names may be anybody's.
        if inner.is_link_local or inner.is_multicast or inner.is_unspecified or inner.is_reserved:
            return False
        return not (self.host.startswith("*.") and inner.is_loopback)


class EgressRules:
    """What is allowed, as a list of rules; what none of them names is refused.

    | rule | allows |
    |---|---|
    | `public` | public addresses over https, on any port |
    | `10.1.0.0/16`, `fd00::/8`, `10.1.2.3` | these addresses over https, on any port |
    | `tools.example.com`, `*.example.com` | a host, or all below one, over https, at private addresses, too |
    | `http://…`, `https://…` before one of these or `*` | by this scheme, on its own port |
    | … and `:8080` or `:*` after it | on this port, or on any |

    A host never leads to link-local addresses (of metadata services), multicast or reserved ones, and a pattern never
    to loopback: only a network does. `*` means public addresses. Raises `ValueError` for an invalid rule.
    """

    def __init__(self, rules: Iterable[str] = (PUBLIC,)) -> None:
        self._rules = tuple(map(_parse_rule, rules))
        self._known: dict[str, Target] = {}

    def with_origin(self, url: str) -> "EgressRules":
        """Returns these rules and one that allows the origin of `url`, at whatever address: the operator named it."""
        target = target_of(url)
        address = _literal(target.host)
        network = ipaddress.ip_network(target.host) if address is not None else None
        more = EgressRules(())
        rule = _Rule(target.scheme, "" if network else target.host, network, target.port)
        more._rules = (*self._rules, rule)
        return more

    def check_url(self, url: str) -> Target:
        """Returns where the URL points. Raises `EgressDenied` where no rule allows that, whatever it resolves to."""
        known = self._known.get(url)
        if known is not None:
            return known
        target = self._checked(url)
        if len(url) <= _MAX_KNOWN_CHARACTERS:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[url] = target
        return target

    def _checked(self, url: str) -> Target:
        target = target_of(url)
        address = _literal(target.host)
        if address is not None:
            if not self.permits(target, address):
                raise EgressDenied(str(target))
        elif _odd(target.host) or not any(
            rule.covers(target) and rule.network is None for rule in self._by_name(target)
        ):
            raise EgressDenied(str(target))
        return target

    def names(self, target: Target) -> bool:
        """Returns whether a rule names this very host, so that others may resolve its name."""
        return any(rule.host and rule.covers(target) for rule in self._rules)

    def permits(self, target: Target, address: Address) -> bool:
        """Returns whether a connection to `address` may be made for this target."""
        if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
            address = ipaddress.IPv6Address(int(address))
        inner = embedded(address)
        return any(rule.covers(target) and rule.permits(address, inner) for rule in self._rules)

    def _by_name(self, target: Target) -> tuple[_Rule, ...]:
        # A name may turn out to stand for an address of a network that is allowed.
        networks = tuple(_Rule(rule.scheme, port=rule.port) for rule in self._rules if rule.network is not None)
        return self._rules + networks


def target_of(url: str) -> Target:
    """Returns where a URL points. Raises `EgressDenied` for any but http(s), and for what parsers read differently."""
    shown = url.partition("?")[0][:200]
    if any(ord(character) <= 32 or ord(character) == 127 or character == "\\" for character in url):
        raise EgressDenied("a URL with spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise EgressDenied("a URL that can't be read") from None
    if parts.scheme not in SCHEMES or not host or "@" in parts.netloc:
        raise EgressDenied(f"{parts.scheme or 'no'}: URLs" if "@" not in parts.netloc else "a URL with credentials")
    try:
        host = host.encode("idna").decode("ascii").lower() if not host.isascii() else host.lower()
    except UnicodeError:
        raise EgressDenied(shown) from None
    host = host.rstrip(".") if not host.endswith("..") else host
    if _literal(host) is None and (len(host) > _MAX_HOST or not _HOST.fullmatch(host) or host.startswith("*")):
        raise EgressDenied("a URL whose host is no name")
    return Target(parts.scheme, host, port if port is not None else SCHEMES[parts.scheme])


def embedded(address: Address) -> Address:
    """Returns the address of IPv4 that one of IPv6 leads to (mapped, compatible, NAT64, 6to4), else the address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Returns whether anybody on the internet could reach it; of an address within an address, both."""
    inner = embedded(address)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = inner
    return all(
        one.is_global
        and not one.is_multicast
        and not one.is_reserved
        and not any(one.version == network.version and one in network for network in _NEVER_PUBLIC)
        for one in {address, inner}
        if one is inner or one not in _NAT64
    )


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _odd(host: str) -> bool:
    """Returns whether a resolver could read the name as a number: `127.1`, `0x7f.1`, `2130706433`, `010.0.0.1`."""
    return _NUMBER.fullmatch(host.rsplit(".", 1)[-1]) is not None


def _parse_rule(text: str) -> _Rule:
    rule = text.strip().lower()
    if rule == PUBLIC:
        return _Rule("https")
    scheme, found, place = rule.rpartition("://")
    if found and scheme not in SCHEMES:
        raise ValueError(f"{text!r}: the scheme must be http or https")
    port: int | None = SCHEMES[scheme] if found else None
    if found:
        place, port = _split_port(text, place, port)
    scheme = scheme or "https"
    if place == "*" and found:
        return _Rule(scheme, port=port)
    bare = place[1:-1] if place.startswith("[") and place.endswith("]") else place
    try:
        return _Rule(scheme, network=ipaddress.ip_network(bare), port=port)
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError(f"{text!r}: the network has host bits set") from None
    if not _HOST.fullmatch(place) or _odd(place) or len(place) > _MAX_HOST:
        raise ValueError(f"{text!r} must be 'public', a network, a host, or http(s):// with one of these and a port")
    return _Rule(scheme, host=place.rstrip("."), port=port)


def _split_port(text: str, place: str, port: int | None) -> tuple[str, int | None]:
    if place.endswith(":*"):
        return place[:-2], None
    head, colon, last = place.rpartition(":")
    if not colon or place.endswith("]") or (":" in head and not head.endswith("]")):
        return place, port
    if not last.isdecimal() or not 0 < int(last) < 65536:
        raise ValueError(f"{text!r}: the port must be 1 to 65535, or *")
    return head, int(last)
