"""What foreign bytes are made of: good ones that were damaged, structures that go on without end, chance."""

import json
from typing import Any

from hypothesis import strategies as st

MAX_NESTING = 20_000
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(2**63), 2**64, float("nan"), float("inf"), -0.0, 1e308]),
    st.text(max_size=20),
)
json_values = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
"""Any JSON, with what Python's writer adds to it (NaN, Infinity)."""


def nested(opening: bytes, closing: bytes = b"") -> st.SearchStrategy[bytes]:
    """The same thing inside itself, thousands of times, closed or not."""
    return st.integers(1, MAX_NESTING).flatmap(
        lambda depth: st.sampled_from([opening * depth, opening * depth + closing * depth])
    )


deep_json = st.one_of(nested(b"[", b"]"), nested(b'{"a":', b"}"), nested(b'[{"keys":', b"}]"))


@st.composite
def damaged(draw: st.DrawFn, *good: bytes) -> bytes:
    """One of the good inputs with a few bytes removed, doubled, replaced or put in."""
    data = draw(st.sampled_from(good))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(data)))
        end = draw(st.integers(at, min(len(data), at + 40)))
        edit = draw(st.sampled_from(("remove", "double", "replace")))
        if edit == "remove":
            data = data[:at] + data[end:]
        elif edit == "double":
            data = data[:end] + data[at:end] + data[end:]
        else:
            data = data[:at] + draw(st.binary(max_size=12)) + data[end:]
    return data


@st.composite
def with_foreign_members(draw: st.DrawFn, good: dict[str, Any]) -> bytes:
    """A good JSON object in which some members are anything."""
    changed = dict(good)
    for name in draw(st.lists(st.sampled_from(sorted(good)), max_size=3)):
        changed[name] = draw(json_values)
    return json.dumps(changed).encode()


def foreign(*good: bytes) -> st.SearchStrategy[bytes]:
    """Bytes of a foreign party, where good ones are among `good`."""
    return st.one_of(
        damaged(*good), st.binary(max_size=200), deep_json, json_values.map(lambda v: json.dumps(v).encode())
    )


def text_of(data: bytes) -> str:
    """Bytes as the text that a transport would make of them."""
    return data.decode("utf-8", "replace")
