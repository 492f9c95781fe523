"""Retries against the real platform behind a proxy that loses, refuses and delays."""

from __future__ import annotations

import asyncio
import email.utils
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flaky_proxy import FlakyProxy, flaky
from support.http_platform import HttpPlatform
from support.http_server import serving

from rlaas.client import AsyncClient, Client, DeadlinePassedError, NoAnswerError
from rlaas.errors import InvalidInputError, OverloadedError, RetryableError
from rlaas.serving.problems import problem_of

ROW = [0.1, -0.5, 2.0]
VARIANTS = [{"name": "champion", "version": 2, "weight": 1}]


@pytest.fixture
def proxy(platform: HttpPlatform, platform_url: str) -> Iterator[FlakyProxy]:
    platform.restore()
    with flaky(platform_url) as proxy:
        yield proxy


def _later(seconds: str, status: int = 503) -> tuple[int, dict[str, str], bytes]:
    _, body = problem_of(OverloadedError("later") if status == 429 else RetryableError("later"))
    return status, {"Retry-After": seconds, "Content-Type": "application/problem+json"}, body


def _decisions(platform: HttpPlatform) -> int:
    return sum(tally.decisions for tally in platform.engine().tally.snapshot())


def test_a_decision_whose_answer_got_lost_is_not_taken_again_unless_allowed(
    platform: HttpPlatform, proxy: FlakyProxy
) -> None:
    with Client(proxy.url) as client:
        proxy.plan = ["drop"]
        before = _decisions(platform)
        with pytest.raises(NoAnswerError, match="no answer to POST /api/v1/policies/toy/decide") as caught:
            client.decide("toy", observation=ROW)
        assert caught.value.maybe_done
        assert (_decisions(platform) - before, len(proxy.seen)) == (1, 1)
        proxy.plan = ["drop", "drop"]
        assert client.decide("toy", observation=ROW, repeat_if_lost=True)["version"] == 1
        assert (_decisions(platform) - before, len(proxy.seen)) == (4, 4)


def test_outcomes_are_repeated_and_counted_once(proxy: FlakyProxy) -> None:
    with Client(proxy.url) as client:
        decision = client.decide("toy", observation=ROW)["decision_id"]
        proxy.plan = ["drop", "refuse"]
        outcome = {"outcome_id": decision, "decision_id": decision, "outcome": {"latency": 1.0}}
        (accepted,) = client.outcomes(outcome)["accepted"]
    assert accepted["duplicate"]
    assert proxy.passed == 3


def test_a_deployment_is_created_once_however_often_its_answer_gets_lost(
    platform: HttpPlatform, proxy: FlakyProxy
) -> None:
    (before,) = [record for record in platform.control.deployments() if record.policy == "toy"]
    with Client(proxy.url) as client:
        proxy.plan = ["drop", _later("0"), "drop"]
        created = client.create_deployment("toy", VARIANTS)
        again = client.create_deployment("toy", VARIANTS)
    keys = [headers["idempotency-key"] for _, _, headers in proxy.seen]
    assert len(set(keys[:4])) == 1
    assert len(set(keys)) == 2
    assert created["generation"] == before.generation + 1 == again["generation"]
    assert proxy.passed == 4


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_waited_for(proxy: FlakyProxy, status: int) -> None:
    soon = email.utils.formatdate(time.time() + 2, usegmt=True)
    with Client(proxy.url) as client:
        proxy.plan = [_later("1", status), _later(soon, status)]
        client.decide("toy", observation=ROW)
    assert proxy.times[1] - proxy.times[0] >= 1.0
    # A date has whole seconds, so that up to one of the two may be gone already.
    assert proxy.times[2] > proxy.times[1]
    assert len(proxy.times) == 3


def test_a_pause_beyond_patience_or_deadline_is_not_begun(proxy: FlakyProxy) -> None:
    with Client(proxy.url) as client:
        proxy.plan = [_later("600", 429)]
        with pytest.raises(OverloadedError, match="later"):
            client.models()
        proxy.plan = [_later("30")]
        with pytest.raises(RetryableError, match="later"):
            client.within(5.0).models()
    assert len(proxy.seen) == 2


def test_the_deadline_is_for_all_attempts_and_told_to_the_platform(proxy: FlakyProxy) -> None:
    with Client(proxy.url, timeout=20.0) as client:
        proxy.plan = [2.0]
        with pytest.raises(DeadlinePassedError, match="no answer"):
            client.within(0.5).models()
        proxy.plan = [_later("0"), _later("0")]
        client.within(30.0).models()
        client.models()
    seconds = [float(headers["x-request-timeout"]) for _, _, headers in proxy.seen]
    assert seconds[0] <= 0.5
    # An attempt waits no longer than its own timeout, and what is left shrinks.
    assert all(value <= 20.0 for value in seconds)
    assert seconds[-1] == 20.0


def test_each_attempt_has_its_own_timeout(proxy: FlakyProxy) -> None:
    with Client(proxy.url, timeout=1.0, attempts=2) as client:
        proxy.plan = [3.0]
        assert client.models()["items"]
        proxy.plan = [3.0]
        with pytest.raises(NoAnswerError):
            client.decide("toy", observation=ROW)
    assert len(proxy.seen) == 3


def test_what_a_middleman_says_of_an_unknown_fate_is_a_lost_answer(proxy: FlakyProxy) -> None:
    with Client(proxy.url) as client:
        proxy.plan = [(502, {}, b"<html>bad gateway</html>")]
        with pytest.raises(NoAnswerError, match="HTTP 502"):
            client.decide("toy", observation=ROW)
        proxy.plan = [(504, {}, b"")]
        assert client.deployments()["items"]
        # The platform's own 504 says that nothing was done.
        proxy.plan = [(504, {"Content-Type": "application/problem+json"}, json.dumps({"detail": "late"}).encode())]
        assert client.decide("toy", observation=ROW)["policy"] == "toy"


def test_the_async_client_does_the_same(platform: HttpPlatform, proxy: FlakyProxy) -> None:
    async def ask() -> None:
        async with AsyncClient(proxy.url) as client:
            proxy.plan = ["drop"]
            with pytest.raises(NoAnswerError):
                await client.decide("toy", observation=ROW)
            proxy.plan = [_later("1"), "drop"]
            await client.decide("toy", observation=ROW, repeat_if_lost=True)
            proxy.plan = [2.0]
            with pytest.raises(DeadlinePassedError):
                await client.within(0.3).models()
            proxy.plan = ["drop"]
            await client.create_deployment("toy", VARIANTS)

    asyncio.run(ask())
    assert proxy.times[2] - proxy.times[1] >= 1.0
    assert len({headers["idempotency-key"] for _, path, headers in proxy.seen if path.endswith("/create")}) == 1


def test_connections_are_pooled_and_bounded(platform: HttpPlatform) -> None:
    clients: set[Any] = set()
    busy, most = 0, 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal busy, most
        if scope["type"] == "http":
            clients.add(scope["client"])
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.02)
            busy -= 1
        await platform.app(scope, receive, send)

    with serving(app, lifespan="off") as address, Client(f"http://{address}", max_connections=3) as client:
        threads = [threading.Thread(target=lambda: [client.health() for _ in range(5)]) for _ in range(9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == 3
    assert len(clients) == 3


@pytest.mark.parametrize(
    ("options", "field"),
    [({"timeout": 0.0}, "timeout_s"), ({"deadline": float("nan")}, "deadline_s"), ({"attempts": 0}, "attempts")],
)
def test_impossible_patience_is_refused(options: dict[str, Any], field: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidInputError) as caught:
            kind("http://127.0.0.1:1", **options)
        assert caught.value.field == field
