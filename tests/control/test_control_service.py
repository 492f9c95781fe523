"""The control plane without Ray: a real registry, a real state database."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from support.bundles import policy_bundle
from support.serving_kit import deployment

from rlaas.control.routes import ControlRoutes
from rlaas.control.service import ControlService
from rlaas.control.state import Remembered, StateDatabase
from rlaas.errors import BundleError, ConfigurationError, ConflictError, InvalidInputError, NotFoundError
from rlaas.registry import Registry
from rlaas.serving.live import DeploymentRecord
from rlaas.serving.web import ControlReply, ControlRequest
from rlaas.settings import Settings, load_settings

ONE = [{"name": "only", "version": 1, "weight": 1}]


class Operations:
    """The processes around Control."""

    def __init__(self) -> None:
        self.replicas = 0

    def scale(self, replicas: int) -> None:
        self.replicas = replicas

    def lake_status(self) -> dict[str, Any]:
        return {"running": True}

    def flush_lake(self) -> dict[str, Any]:
        return {"transitions": 0}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A registry with two versions of toy; copied by no test, so tests keep to policies and databases of their own."""
    root = tmp_path_factory.mktemp("control")
    settings = load_settings(home=root / "home")
    registry = Registry(settings)
    registry.register("toy", policy_bundle(root / "one", seed=1), alias="champion")
    registry.register("toy", policy_bundle(root / "two", seed=2))
    registry.register("toy", policy_bundle(root / "wide", features=5))
    registry.register("idle", policy_bundle(root / "idle"))
    return settings


@pytest.fixture
def service(home: Settings, tmp_path: Path) -> ControlService:
    return ControlService(home.model_copy(update={"state_url": f"sqlite:///{tmp_path / 'state.db'}"}))


def _ask(routes: ControlRoutes, method: str, path: str, body: Any = None, **headers: str) -> ControlReply:
    path, _, query = path.partition("?")
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    pairs = dict(part.split("=") for part in query.split("&") if part)
    return routes.dispatch(
        ControlRequest("default", method, path, pairs, {k.replace("_", "-"): v for k, v in headers.items()}, content)
    )


# --- state -------------------------------------------------------------------------------------------------------


def test_a_generation_is_written_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'state.db'}"
    first, second = StateDatabase(url), StateDatabase(url)
    first.write(deployment("toy", ONE))
    for database in (first, second):
        with pytest.raises(ConflictError, match="somebody else"):
            database.write(deployment("toy", ONE))
    second.write(deployment("toy", ONE, generation=2))
    with pytest.raises(ConflictError):
        first.write(deployment("toy", ONE, generation=2))
    with pytest.raises(ConflictError):
        first.write(deployment("toy", ONE, generation=4))
    assert [record.generation for record in first.deployments("default")] == [2]
    assert first.deployments("another") == []


def test_a_deletion_survives_and_generations_go_on(tmp_path: Path) -> None:
    database = StateDatabase(f"sqlite:///{tmp_path / 'state.db'}")
    database.write(deployment("toy", ONE))
    stored = database.of_id("default", "dep-toy")
    assert stored is not None
    database.delete("default", stored)
    assert database.deployments("default") == []
    with pytest.raises(ConflictError):
        database.delete("default", stored)
    after = database.of_policy("default", "toy")
    assert after is not None
    assert (after.record, after.generation) == (None, 2)
    database.write(deployment("toy", ONE, generation=3))
    database.close()


def test_processes_that_start_together_agree_on_the_secret(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    code = f"from rlaas.control.state import StateDatabase; print(StateDatabase({url!r}).secret().hex())"
    children = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    secrets = {child.communicate(timeout=60)[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert secrets == {StateDatabase(url).secret().hex()}
    assert len(bytes.fromhex(secrets.pop())) == 32
    assert StateDatabase(url).secret(b"given") == b"given"


def test_racing_writers_leave_no_gap_and_no_double(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'state.db'}"
    StateDatabase(url).write(deployment("toy", ONE))
    code = textwrap.dedent(f"""
        from rlaas.control.state import StateDatabase
        from rlaas.errors import ConflictError
        database, wins = StateDatabase({url!r}), 0
        while wins < 20:
            stored = database.of_policy("default", "toy")
            try:
                database.write(stored.record.model_copy(update={{"generation": stored.generation + 1}}))
                wins += 1
            except ConflictError:
                continue
    """)
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [child.wait(timeout=60) for child in children] == [0, 0]
    stored = StateDatabase(url).of_policy("default", "toy")
    assert stored is not None
    assert stored.generation == 41


def test_answers_are_remembered_for_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = StateDatabase(f"sqlite:///{tmp_path / 'state.db'}")
    reply = Remembered("digest", 201, b"{}")
    database.remember("default", "k", reply)
    assert database.recall("default", "k") == reply
    assert database.recall("another", "k") is None
    later = 25 * 3600 * 10**9
    now = time.time_ns()
    monkeypatch.setattr("rlaas.control.state.time.time_ns", lambda: now + later)
    database.remember("default", "k2", reply)
    assert database.recall("default", "k") is None


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        StateDatabase(url)
    assert caught.value.field == "state_url"


# --- service -----------------------------------------------------------------------------------------------------


def test_champions_are_adopted_once_and_deletions_respected(service: ControlService) -> None:
    (adopted,) = service.adopt_champions()
    assert (adopted.policy, adopted.generation, adopted.variants[0].version) == ("toy", 1, 1)
    assert service.adopt_champions() == []
    answer = service.live("r1")
    assert answer.records == (adopted,)
    assert Path(answer.paths["toy", 1], "bundle.json").is_file()
    service.delete_deployment(adopted.id)
    assert service.adopt_champions() == []
    assert service.live("r1").records == ()
    revived, new = service.create_deployment("toy", ONE)
    assert (revived.id, revived.generation, new) == (adopted.id, 3, True)


def test_a_restart_finds_the_state_and_the_secret_again(home: Settings, tmp_path: Path) -> None:
    settings = home.model_copy(update={"state_url": f"sqlite:///{tmp_path / 'state.db'}"})
    first = ControlService(settings)
    first.create_deployment("toy", ONE)
    again = ControlService(settings).live("r")
    assert again.records == first.live("r").records
    assert again.secret == first.live("r").secret
    given = load_settings(home=home.home, secret="0123456789abcdef", state_url=settings.state_url)
    assert ControlService(given).live("r").secret == b"0123456789abcdef"


def test_status_tells_who_has_loaded_what(service: ControlService) -> None:
    record, _ = service.create_deployment("toy", ONE)
    assert service.status(record.id)[1]["ready"] is False
    service.live("r1", {record.id: 1})
    service.live("r2", {})
    status = service.status("toy")[1]
    assert [(r["replica"], r["generation"]) for r in status["replicas"]] == [("r1", 1), ("r2", 0)]
    assert status["ready"] is False
    service.live("r2", {record.id: 1}, {record.id: "damaged"})
    assert service.status("toy")[1]["ready"] is False
    service.live("r2", {record.id: 1})
    assert service.status("toy")[1]["ready"] is True
    service.create_deployment("toy", [{"name": "only", "version": 2, "weight": 1}])
    assert service.status("toy")[1]["ready"] is False


def test_a_silent_replica_counts_no_longer(home: Settings, tmp_path: Path) -> None:
    settings = home.model_copy(update={"state_url": f"sqlite:///{tmp_path / 'state.db'}"})
    service = ControlService(settings, stale_s=0.0)
    record, _ = service.create_deployment("toy", ONE)
    service.live("r1", {record.id: 1})
    assert service.status("toy")[1]["replicas"] == []


def test_promotion_changes_the_truth_and_the_mirror(home: Settings, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home")
    registry = Registry(settings)
    for seed in (1, 2):
        registry.register("p", policy_bundle(tmp_path / str(seed), seed=seed), alias="candidate")
    service = ControlService(settings)
    version, record = service.promote("p", 1)
    assert record is not None
    assert (version["version"], record.generation, record.variants[0].name) == (1, 1, "champion")
    assert registry.get("p", "champion").version == 1
    _, same = service.promote("p", 1)
    assert same == record  # nothing changed, so no replica has to reload
    _, none = service.promote("p", 2, alias="challenger")
    assert none is None
    assert registry.get("p", "challenger").version == 2
    assert service.promote("p", "candidate")[1] == service.deployments()[0]
    with pytest.raises(NotFoundError):
        service.promote("p", 7)
    assert registry.get("p", "champion").version == 2
    with pytest.raises(ConflictError):
        service.delete_version("p", 2)
    service.delete_version("p", 1)
    assert [v["version"] for v in service.versions("p")] == [2]


def test_nothing_half_done_remains_of_a_refused_deployment(service: ControlService) -> None:
    for variants, error in (
        ([{"name": "a", "version": 9, "weight": 1}], NotFoundError),
        ([{"name": "a", "version": 1, "weight": 1}, {"name": "b", "version": 3, "weight": 1}], InvalidInputError),
        ([{"name": "a", "version": 1, "weight": 0}], InvalidInputError),
        ([], InvalidInputError),
        (["a"], InvalidInputError),
    ):
        with pytest.raises(error):
            service.create_deployment("toy", variants)
    with pytest.raises(NotFoundError, match="toy"):
        service.create_deployment("nobody", ONE)
    with pytest.raises(InvalidInputError, match="plain name"):
        service.create_deployment("../toy", ONE)
    assert service.deployments() == []
    assert service.create_deployment("toy", ONE)[0].generation == 1


def test_registration_stays_within_the_home_and_refuses_damage(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home")
    service = ControlService(settings)
    policy_bundle(settings.home / "incoming" / "good")
    outside = policy_bundle(tmp_path / "outside")
    assert service.register("p", "incoming/good", metrics={"reward": 1.0})["aliases"] == ["candidate"]
    (settings.home / "incoming" / "link").symlink_to(outside)
    for path in ("../outside", str(outside), "incoming/link", "incoming/none", "/etc"):
        with pytest.raises(InvalidInputError) as caught:
            service.register("p", path)
        assert caught.value.field == "path"
    with pytest.raises(InvalidInputError, match="promote"):
        service.register("p", "incoming/good", alias="champion")
    damaged = policy_bundle(settings.home / "incoming" / "bad")
    (damaged / "policy.onnx").write_bytes(b"")
    with pytest.raises(BundleError):
        service.register("p", "incoming/bad")
    assert [v["version"] for v in service.versions("p")] == [1]


# --- routes ------------------------------------------------------------------------------------------------------


def test_creates_are_idempotent_and_guarded_by_entity_tags(service: ControlService) -> None:
    routes = ControlRoutes(service, Operations())
    body = {"policy": "toy", "variants": ONE}
    created = _ask(routes, "POST", "/api/v1/deployments/create", body, idempotency_key="k")
    assert created.status == 201
    record = DeploymentRecord.model_validate({k: v for k, v in json.loads(created.body).items() if k != "weights"})
    assert created.headers["ETag"] == record.etag
    again = _ask(routes, "POST", "/api/v1/deployments/create", body, idempotency_key="k")
    assert (again.status, again.body) == (created.status, created.body)
    other = _ask(routes, "POST", "/api/v1/deployments/create", {**body, "experiment": None}, idempotency_key="k")
    assert (other.status, json.loads(other.body)["field"]) == (409, "Idempotency-Key")
    stale = _ask(routes, "POST", "/api/v1/models/toy/promote", {"version": 2}, if_match='"dep-x.1"')
    assert (stale.status, json.loads(stale.body)["field"]) == (409, "If-Match")
    deleted = _ask(routes, "DELETE", f"/api/v1/deployments/{record.id}", if_match=record.etag)
    assert deleted.status == 200
    assert _ask(routes, "GET", f"/api/v1/deployments/{record.id}/status").status == 404


def test_a_failed_create_is_not_remembered(service: ControlService) -> None:
    routes = ControlRoutes(service, Operations())
    bad = {"policy": "toy", "variants": [{**ONE[0], "version": 9}]}
    for _ in range(2):
        assert _ask(routes, "POST", "/api/v1/deployments/create", bad, idempotency_key="k").status == 404
    good = {"policy": "toy", "variants": ONE}
    assert _ask(routes, "POST", "/api/v1/deployments/create", good, idempotency_key="k").status == 201


def test_scaling_reaches_the_pool(service: ControlService) -> None:
    operations = Operations()
    routes = ControlRoutes(service, operations)
    record, _ = service.create_deployment("toy", ONE)
    assert _ask(routes, "PUT", f"/api/v1/deployments/{record.id}/scale", {"replicas": 3}).status == 202
    assert operations.replicas == 3
    assert _ask(routes, "PUT", "/api/v1/deployments/dep-none/scale", {"replicas": 4}).status == 404
    assert operations.replicas == 3


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("POST", "/api/v1/deployments/create", b"{", 400, "body"),
        ("POST", "/api/v1/deployments/create", b"[" * 100_000, 400, "body"),
        ("POST", "/api/v1/deployments/create", [], 422, "body"),
        ("POST", "/api/v1/deployments/create", {"policy": "toy"}, 422, "variants"),
        ("POST", "/api/v1/deployments/create", {"policy": 1, "variants": ONE}, 422, "policy"),
        ("POST", "/api/v1/deployments/create", {"policy": "a/../b", "variants": ONE}, 422, "policy"),
        ("POST", "/api/v1/deployments/create", {"policy": "toy", "variants": [{}]}, 422, "variants.0.name"),
        ("POST", "/api/v1/deployments/create", {"policy": "toy", "variants": ONE, "experiment": 1}, 422, "experiment"),
        ("POST", "/api/v1/models/../promote", {"version": 1}, 422, "model"),
        ("POST", "/api/v1/models/toy/promote", {"version": 0}, 422, "version"),
        ("POST", "/api/v1/models/toy/promote", {"version": 1, "alias": "V/9"}, 422, "alias"),
        ("POST", "/api/v1/models/register", {"name": "../x", "path": "p"}, 422, "path"),
        ("DELETE", "/api/v1/models/toy/versions/-1", None, 422, "version"),
        ("DELETE", "/api/v1/models/toy/versions/99", None, 404, "version"),
        ("GET", "/api/v1/models?page_size=0", None, 422, "page_size"),
        ("GET", "/api/v1/models?page_size=x", None, 422, "page_size"),
        ("GET", "/api/v1/models?page_token=%", None, 422, "page_token"),
        ("PUT", "/api/v1/deployments/toy/scale", {"replicas": 0}, 422, "replicas"),
        ("POST", "/api/v1/deployments/x/status", None, 405, "method"),
        ("GET", "/api/v1/other", None, 404, "path"),
    ],
)
def test_bad_requests_name_the_field(
    service: ControlService, method: str, path: str, body: Any, status: int, field: str
) -> None:
    reply = _ask(ControlRoutes(service, Operations()), method, path, body)
    document = json.loads(reply.body)
    assert (reply.status, document["field"]) == (status, field), document
    assert service.deployments() == []


def test_lists_are_paged_to_the_end(service: ControlService) -> None:
    routes = ControlRoutes(service, Operations())
    names: list[str] = []
    query = {"page_size": "1"}
    for _ in range(2):
        reply = routes.dispatch(ControlRequest("default", "GET", "/api/v1/models", query, {}, b""))
        page = json.loads(reply.body)
        names += [item["name"] for item in page["items"]]
        query = {"page_size": "1", "page_token": page["next_page_token"]}
    assert names == ["idle", "toy"]
    assert page["next_page_token"] is None
