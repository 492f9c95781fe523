"""Requests, and what may be changed in one: for :mod:`benchmarks.serving_fuzz`."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

__all__ = ["Sent", "changed"]

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    2**31,
    2**62,
    2**63,
    2**64,
    10**400,
    0.1,
    -0.0,
    1e-320,
    3.5e38,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    "a",
    "toy",
    "champion",
    "1",
    "\x00",
    "../../etc/passwd",
    ".",
    "\ud800",
    "\u202e\U0001f4a9",
    "x" * 5000,
    "' OR 1=1 --",
    "%s%n{0}",
    [],
    {},
    [[]],
    [None],
    [0.1, -0.5, 2.0],
    [[0.1, -0.5, 2.0]] * 3,
    [0.0] * 2000,
    {"": 1},
    {"latency": 1},
    {"latency": -1, "throughput": 1e300},
    {"a": {"b": [{"c": None}]}},
)
NAMES = ("", "a", "observation", "unit", "kind", "name", "version", "\x00", "__proto__", "\ud800", "k" * 300)
PARTS = (
    "toy",
    "box",
    "network5g",
    "nobody",
    "..%2f..%2fetc%2fpasswd",
    "%00",
    "%ff%fe",
    "%0d%0aX-Evil:%201",
    ".",
    "..",
    "%20",
    "a" * 3000,
    "1",
    "0",
    "-1",
    "99999999999999999999",
    "%D9%A1",
    "caf%C3%A9",
    "%",
    "*",
    "toy%2Finfer",
)
HEADERS: dict[str, tuple[str, ...]] = {
    "x-request-timeout": ("1", "0", "-1", "nan", "inf", "1e-9", "1e400", "", "ten", "3600", "3601", "\xb2"),
    "x-request-id": ("", "a" * 5000, "\xff\xfe", "id\tid"),
    "content-encoding": ("gzip", "identity", "", "br, gzip", "x" * 500),
    "content-type": ("", "text/plain", "application/xml", "application/json; charset=utf-16", "multipart/form-data"),
    "inference-header-content-length": ("0", "1", "10", "-1", "", "99999999999999999999", "1e3", "\xb2", "20"),
    "idempotency-key": ("", "k", "k" * 256, "k" * 257, "\xff"),
    "if-match": ("*", "", '"stale"', 'W/"x"', "\xff" * 300),
    "if-none-match": ("*", "", '"a", "b"', "\xff"),
    "authorization": ("Bearer ", "Bearer x", "Basic \xff", "x" * 4000),
    "accept": ("", "*/*", "application/xml;q=0", "\xff"),
    "x-forwarded-prefix": ("/../", "\xff"),
}
QUERIES = (
    "page_size=0",
    "page_size=1",
    "page_size=1001",
    "page_size=%D9%A1",
    "page_size=-1&page_size=2",
    "page_token=",
    "page_token=AAAA",
    "page_token=%FF%FE",
    "page_token=dG95",
    "page_token=" + "A" * 3000,
    "label=static",
    "label=..%2f",
    "label=%00",
    "label=" + "l" * 200,
    "colour=blue",
    "=&=&&",
    "%",
    "a[b][c]=1",
)


@dataclass(frozen=True, slots=True)
class Sent:
    """A request.

    Attributes:
        method: of HTTP.
        path: quoted.
        query: quoted.
        headers: without content-length.
        body: raw.
        moved: the path was changed, so that another route may answer.
    """

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    moved: bool = False

    def shown(self) -> str:
        """On one line."""
        query = f"?{self.query[:80]}" if self.query else ""
        return f"{self.method} {self.path[:120]}{query} {self.headers or ''} {self.body[:300]!r}"


def changed(base: Sent, rng: Random, label: str) -> Sent:
    """A request with one to three things changed."""
    sent = base
    kinds: list[Callable[[Sent, Random], Sent]] = [_header, _header, _query, _path]
    if base.method != "GET":
        kinds += [_value] * 6 + [_raw] * 2
    for _ in range(rng.choice((1, 1, 2, 3))):
        sent = rng.choice(kinds)(sent, rng)
    if label.endswith("/register") and rng.random() < 0.98:
        # A version that is registered takes seconds; most of these requests name a bundle that is not there.
        sent = replace(sent, body=sent.body.replace(b"bundles/toy", b"bundles/nil"))
    return sent


def _header(sent: Sent, rng: Random) -> Sent:
    name = rng.choice(list(HEADERS))
    kept = {key: value for key, value in sent.headers.items() if key.lower() != name}
    return replace(sent, headers={**kept, name: rng.choice(HEADERS[name])})


def _query(sent: Sent, rng: Random) -> Sent:
    return replace(sent, query="&".join(filter(None, (sent.query, rng.choice(QUERIES)))))


def _path(sent: Sent, rng: Random) -> Sent:
    parts = sent.path.split("/")
    if rng.random() < 0.1:
        parts.insert(rng.randrange(1, len(parts) + 1), rng.choice(PARTS))
    else:
        parts[rng.randrange(1, len(parts))] = rng.choice(PARTS)
    return replace(sent, path="/".join(parts), moved=True)


def _value(sent: Sent, rng: Random) -> Sent:
    """Another value or key somewhere in a JSON body."""
    try:
        document = json.loads(sent.body)
    except (ValueError, RecursionError):
        return _raw(sent, rng)
    places = list(_places(document))
    if not places or rng.random() < 0.02:
        return replace(sent, body=_dumped(rng.choice(VALUES)))
    document = copy.deepcopy(document)
    *way, last = rng.choice(places)
    owner = document
    for step in way:
        owner = owner[step]
    action = rng.random()
    if action < 0.7:
        owner[last] = rng.choice(VALUES)
    elif action < 0.85 or isinstance(owner, list):
        del owner[last]
    else:
        owner[rng.choice(NAMES)] = rng.choice(VALUES)
    return replace(sent, body=_dumped(document))


def _places(value: Any, way: tuple[Any, ...] = ()) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*way, key)
        yield from _places(item, (*way, key))


def _dumped(document: Any) -> bytes:
    return json.dumps(document).encode()


def _raw(sent: Sent, rng: Random) -> Sent:
    body = sent.body
    at = rng.randrange(len(body) + 1)
    options: tuple[Callable[[], bytes], ...] = (
        lambda: body[:at],
        lambda: body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :],
        lambda: body[:at] + b"\x00" + body[at:],
        lambda: body + body,
        lambda: b"\xef\xbb\xbf" + body,
        lambda: b"",
        lambda: b" " * 1000 + body,
        lambda: b"[" * 20_000,
        lambda: b"[" * 5000 + b"]" * 5000,
        lambda: b'{"a":' * 2000 + b"1" + b"}" * 2000,
        lambda: rng.randbytes(rng.randrange(64)),
        lambda: body.replace(b"0.1", b"1e999"),
        lambda: body.replace(b"0.1", b"0." + b"1" * 5000),
        lambda: b"1" * 5000,
        lambda: body.decode("latin-1").encode("utf-16"),
    )
    return replace(sent, body=rng.choice(options)())
