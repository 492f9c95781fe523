"""The calls about fronts, from the clients through the Gateway's routes to the control plane's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from support.front_kit import NoOperations, network_front, write_front_file
from support.http_server import serving
from support.lanes import StandIn

from rlaas.client import AsyncClient, Client
from rlaas.control.fronts import FrontService
from rlaas.control.routes import ControlRoutes
from rlaas.control.service import ControlService
from rlaas.decisions.elicitation import Elicitation
from rlaas.errors import ConflictError, InvalidInputError, NotFoundError
from rlaas.fronts import Front
from rlaas.registry import Registry
from rlaas.registry.fronts import FrontStore
from rlaas.serving.web import create_app
from rlaas.settings import load_settings

FRONT = network_front(12)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("client") / "home"
    settings = load_settings(home=home)
    write_front_file(home, FRONT, "static")
    registry = Registry(settings)
    registry.names()
    control = ControlRoutes(ControlService(settings), NoOperations(), FrontService(FrontStore(registry), home))
    with serving(create_app(StandIn(control=control))) as address:
        yield f"http://{address}"


def test_a_front_is_listed_read_and_chosen_from(url: str) -> None:
    with Client(url) as client:
        (item,) = client.fronts()["items"]
        assert (item["scenario"], item["label"], item["version"]) == ("network", "static", FRONT.version)
        for label in (None, "static"):
            assert Front.from_dict(client.front("network", label=label)) == FRONT
        answer = client.resolve("network", preference={"latency": 1.0}, mode=None)
        assert answer["step"] == "live"
        assert answer["objectives"]["latency"] == pytest.approx(FRONT.values()[:, 0].min())
        with pytest.raises(NotFoundError, match="no front 'ghost'; allowed: static"):
            client.front("network", label="ghost")
        with pytest.raises(InvalidInputError, match="unknown method") as caught:
            client.resolve("network", preference={"latency": 1.0}, method="guess")
        assert caught.value.field == "method"
        with pytest.raises(InvalidInputError, match="not a plain name"):
            client.front("../secrets")


def test_questions_end_in_weights(url: str) -> None:
    state, answers = Elicitation(FRONT), []
    with Client(url) as client:
        while not (document := client.elicit("network", answers, front_version=FRONT.version))["done"]:
            answers.append("b")
            state = state.answer("b")
        assert document["preference"] == pytest.approx(state.result().to_dict())
        with pytest.raises(ConflictError, match="start again"):
            client.elicit("network", answers, front_version="older")


def test_both_clients_get_the_same(url: str) -> None:
    async def ask() -> list[Any]:
        async with AsyncClient(url) as client:
            resolved = await client.resolve("network", preference={"energy": 1.0})
            return [await client.fronts(), await client.front("network"), await client.elicit("network"), resolved]

    with Client(url) as client:
        waited = [client.fronts(), client.front("network"), client.elicit("network")]
        resolved = client.resolve("network", preference={"energy": 1.0})
    *documents, awaited = asyncio.run(ask())
    assert documents == waited
    assert awaited["candidate"] == resolved["candidate"]


def test_a_known_version_travels_as_304(url: str) -> None:
    import httpx

    first = httpx.get(f"{url}/api/v1/fronts/network")
    again = httpx.get(f"{url}/api/v1/fronts/network", headers={"If-None-Match": first.headers["etag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    missing = httpx.get(f"{url}/api/v1/fronts/ghost")
    assert missing.headers["content-type"].startswith("application/problem+json")
