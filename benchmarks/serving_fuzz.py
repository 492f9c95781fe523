"""Generated requests against every route of the platform: none may crash it, hang, or get an undocumented answer.

    python -m benchmarks.serving_fuzz [--quick] [--json] [--requests 10000] [--only decide resolve] [--seed 1]
                                      [--minutes 30] [--progress fuzz.jsonl]

The platform is the real one in this process: the Gateway's routes behind the fast lane, the real control plane on a
real registry and state database, no Ray. Schemathesis (on hypothesis) makes requests from the OpenAPI document, valid
and invalid ones; each is sent as it is, then again and again with something changed: a value, a key, a byte, a header,
a part of the path or of the query, by a seeded generator. The document's examples are changed in the same way, so that
the requests reach what lies behind the checks. Routes take turns, a chunk of requests each, so that a run that is cut
short (``--minutes``) has asked all of them about as often. ``--progress`` names a file with a line for each finished
chunk: a later run with the same seed leaves those out and reports on all of them together.

A finding is a status of 500 or more (but 504 where ``x-request-timeout`` asks for it), no answer within 10 s, a status
that the document does not name, a refusal that is no problem document, or a body that its schema refuses.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

import structlog
from jsonschema import Draft202012Validator

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from benchmarks.harness import Row, parse_arguments, report
from benchmarks.serving_fuzz_changes import Sent, changed
from benchmarks.serving_fuzz_report import SHOWN, Progress, RouteReport

if TYPE_CHECKING:
    from schemathesis import Case

__all__ = ["Answer", "Platform", "Site", "fuzz", "generated", "operations"]

PATIENCE_S = 10.0
PER_MODE = {"positive": 60, "negative": 40}
"""Requests that schemathesis makes for a route; one takes it some 50 ms."""
SLOW_MS = 1000.0
"""Beyond it the table names the request."""
RESTORE_EVERY = 25
CHUNK = 500
"""Requests to a route before the next has its turn; each chunk has a seed of its own."""
CHANGING = ("/api/v1/models", "/api/v1/deployments", "/api/v1/experiments")
"""Routes that change what is live."""


class Platform(Protocol):
    """What is asked: :class:`support.http_platform.HttpPlatform`."""

    app: Any

    def restore(self) -> None:
        """Undo what the requests have changed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Site:
    """An ASGI application that is called without a network, and a document that says what it may answer."""

    def __init__(self, app: Any, document: dict[str, Any]) -> None:
        self._app = app
        self._document = document
        self._validators: dict[str, Draft202012Validator] = {}

    async def ask(self, sent: Sent) -> Answer:
        """Send a request.

        Raises:
            TimeoutError: no answer in time.
        """
        path = unquote(sent.path, errors="surrogateescape").encode("utf-8", "surrogateescape")
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in sent.headers.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": sent.method,
            "scheme": "http",
            "path": path.decode("utf-8", "replace"),
            "raw_path": sent.path.encode("latin-1", "replace"),
            "query_string": sent.query.encode("latin-1", "replace"),
            "root_path": "",
            "headers": [*headers, (b"content-length", str(len(sent.body)).encode())],
            "server": ("test", 80),
            "client": ("test", 1),
        }
        messages = [{"type": "http.request", "body": sent.body, "more_body": False}]
        got: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return messages.pop(0) if messages else await asyncio.Future()

        async def send(message: dict[str, Any]) -> None:
            got.append(message)

        async with asyncio.timeout(PATIENCE_S):
            await self._app(scope, receive, send)
        names = {name.decode("latin-1"): value.decode("latin-1") for name, value in got[0]["headers"]}
        return Answer(got[0]["status"], names, b"".join(message.get("body", b"") for message in got[1:]))

    def complaint(self, operation: dict[str, Any], sent: Sent, answer: Answer) -> str | None:
        """Why an answer should not have been given; None for one that is right."""
        asked_504 = answer.status == 504 and "x-request-timeout" in {name.lower() for name in sent.headers}
        if answer.status >= 500 and not asked_504:
            return f"status {answer.status}"
        # A part of a path that was changed may name another route.
        if str(answer.status) not in operation["responses"] and not (sent.moved and answer.status in (404, 405)):
            return f"status {answer.status} is not documented"
        kind = answer.headers.get("content-type", "")
        if answer.status >= 400 and kind != "application/problem+json":
            return f"status {answer.status} with content type {kind!r}"
        content = operation["responses"].get(str(answer.status), {}).get("content", {})
        if answer.status == 304 or not content or sent.moved or kind not in content:
            return None if not content or kind in content or sent.moved else f"content type {kind!r} is not documented"
        if "json" not in kind:
            return None
        return next(
            (
                f"body: {error.message[:200]}"
                for error in self._validator(content[kind]["schema"]).iter_errors(json.loads(answer.body))
            ),
            None,
        )

    def _validator(self, schema: dict[str, Any]) -> Draft202012Validator:
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            whole = {**schema, "components": self._document["components"]}
            self._validators[key] = Draft202012Validator(whole)
        return self._validators[key]


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every route; those that delete come last."""
    found = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    yield from sorted(found, key=lambda one: one[0] == "DELETE")


def generated(
    document: dict[str, Any], per_mode: dict[str, int], seed: int, only: Sequence[str] = ()
) -> dict[str, list[Sent]]:
    """Requests that schemathesis makes from the document, by method and path; ``only`` as in :func:`fuzz`."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as hypothesis_seed
    from hypothesis.errors import Unsatisfiable
    from schemathesis import GenerationMode

    found: dict[str, list[Sent]] = {}
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()
        if only and operation.definition.raw["operationId"] not in only:
            continue
        made = found.setdefault(operation.label, [])
        for mode in GenerationMode:
            quiet = settings(
                max_examples=per_mode[mode.value],
                database=None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
            )
            # What takes no parameters cannot be asked wrongly.
            with contextlib.suppress(Unsatisfiable):
                hypothesis_seed(seed)(quiet(given(operation.as_strategy(generation_mode=mode))(_taker(made))))()
    return found


def _taker(made: list[Sent]) -> Callable[[Case[Any]], None]:
    import requests

    def take(case: Case[Any]) -> None:
        prepared = requests.Request(**case.as_transport_kwargs(base_url="http://test")).prepare()
        parts = urlsplit(str(prepared.url))
        body = prepared.body or b""
        made.append(
            Sent(
                str(prepared.method),
                parts.path,
                parts.query,
                {str(name): str(value) for name, value in prepared.headers.items() if name in case.headers},
                body if isinstance(body, bytes) else str(body).encode("utf-8", "surrogatepass"),
            )
        )

    return take


def examples(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> list[Sent]:
    """The requests that the document shows for a route."""
    for reference in operation.get("parameters", ()):
        parameter = document["components"]["parameters"][reference["$ref"].rsplit("/", 1)[1]]
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", parameter["example"])
    shown = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("examples", {})
    bodies = [json.dumps(example["value"]).encode() for example in shown.values()] or [b""]
    return [Sent(method, path, "", {}, body) for body in bodies]


async def fuzz(
    platform: Platform,
    document: dict[str, Any],
    pool: dict[str, list[Sent]],
    *,
    requests: int,
    seed: int = 1,
    only: Sequence[str] = (),
    minutes: float = math.inf,
    progress: Progress | None = None,
) -> list[RouteReport]:
    """Send requests to every route.

    Args:
        platform: that is asked.
        document: OpenAPI.
        pool: of :func:`generated`.
        requests: to each route.
        seed: of the changes.
        only: ids of operations; none for all.
        minutes: after which no further chunk is begun.
        progress: what has been done before, and where to write down what is done now.
    """
    site = Site(platform.app, document)
    progress = progress or Progress(None, seed)
    until = time.monotonic() + 60 * minutes
    routes = [one for one in operations(document) if not only or one[2]["operationId"] in only]
    reports = {f"{method} {path}": RouteReport(f"{method} {path}") for method, path, _ in routes}
    chunks = range(-(-requests // CHUNK))
    # What deletes comes last: what it takes away, no other route would find.
    turns = [
        (chunk, *route)
        for deletes in (False, True)
        for chunk in chunks
        for route in routes
        if (route[0] == "DELETE") is deletes
    ]
    for chunk, method, path, operation in turns:
        label = f"{method} {path}"
        count = min(CHUNK, requests - chunk * CHUNK)
        found = progress.done(label, chunk, count)
        if found is None:
            if time.monotonic() >= until:
                break
            found = RouteReport(label)
            sents = _requests(
                examples(method, path, operation, document),
                pool.get(label, []),
                Random(f"{seed} {label} {chunk}"),
                label,
                range(chunk * CHUNK, chunk * CHUNK + count),
            )
            begun = time.process_time()
            for index, sent in enumerate(sents):
                await _one(site, operation, sent, found)
                if method != "GET" and path.startswith(CHANGING) and index % RESTORE_EVERY == RESTORE_EVERY - 1:
                    await asyncio.to_thread(platform.restore)
            await asyncio.to_thread(platform.restore)
            found.cpu_s = time.process_time() - begun
            progress.keep(chunk, found)
        reports[label].add(found)
    return list(reports.values())


def _requests(shown: list[Sent], made: list[Sent], rng: Random, label: str, indices: range) -> Iterator[Sent]:
    """What schemathesis made, as far as it goes; then that or the examples, changed."""
    for index in indices:
        if index < len(made):
            yield made[index]
        else:
            base = rng.choice(made) if made and rng.random() < 0.3 else rng.choice(shown)
            yield changed(base, rng, label)


async def _one(site: Site, operation: dict[str, Any], sent: Sent, found: RouteReport) -> None:
    why: str | None
    answer = None
    started = time.perf_counter()
    try:
        answer = await site.ask(sent)
    except TimeoutError:
        why = f"no answer within {PATIENCE_S:g} s"
    except Exception as problem:  # nothing may escape from the application: a server would make it a 500
        why = f"raised {type(problem).__name__}: {problem}"
        found.statuses[500] += 1
    found.took((time.perf_counter() - started) * 1000, sent.shown())
    if answer is not None:
        found.statuses[answer.status] += 1
        why = site.complaint(operation, sent, answer)
        if why is not None:
            why += f": {answer.body[:200]!r}"
    found.requests += 1
    if why is not None and len(found.findings) < SHOWN:
        found.findings.append(f"{why} to {sent.shown()}")


def main() -> None:
    """Run it and print a table."""
    arguments = parse_arguments("serving_fuzz", _own_arguments)
    from support.http_platform import HttpPlatform

    from rlaas.serving.openapi import openapi_document

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    document = json.loads(openapi_document())
    requests = arguments.requests or (300 if arguments.quick else 10_000)
    per_mode = {"positive": 5, "negative": 5} if arguments.quick else PER_MODE
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        platform = HttpPlatform(Path(folder))
        with platform.fast_lane():
            pool = generated(document, per_mode, arguments.seed, arguments.only)
            reports = asyncio.run(
                fuzz(
                    platform,
                    document,
                    pool,
                    requests=requests,
                    seed=arguments.seed,
                    only=arguments.only,
                    minutes=arguments.minutes,
                    progress=Progress(arguments.progress, arguments.seed),
                )
            )
        platform.close()
    for one in reports:
        counts = ", ".join(f"{status}: {count}" for status, count in sorted(one.statuses.items()))
        print(
            f"{one.label:<66} {one.requests:>6} requests  worst {one.worst_ms:8.1f} ms  "
            f"{one.cpu_s:7.1f} s  5xx {one.crashes:>4}  {counts}",
            file=sys.stderr,
        )
        for finding in one.findings:
            print(f"    {finding}", file=sys.stderr)
        if one.worst_ms > SLOW_MS:
            print(f"    slowest: {one.slowest}", file=sys.stderr)
    rows = [Row(f"{one.label}: worst of {one.requests}", "ms", one.worst_ms, better="lower") for one in reports]
    rows += [
        Row("requests", "requests", sum(one.requests for one in reports)),
        Row("answers of 500 or more", "answers", sum(one.crashes for one in reports), better="lower"),
        Row("findings", "findings", sum(len(one.findings) for one in reports), better="lower"),
    ]
    report("serving_fuzz", rows, arguments.json)


def _own_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--requests", type=int, default=0, help="to each route; 0: 10,000, or 300 with --quick")
    parser.add_argument("--only", nargs="*", default=[], help="ids of operations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no further chunk is begun")
    parser.add_argument("--progress", type=Path, help="file of finished chunks, to go on from")


if __name__ == "__main__":
    main()
