"""Resolutions in the state database: SQLite, and PostgreSQL where there are a server and a driver."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.local_ray import started_ray
from support.resolution_log import ResolutionLog

from rlaas.control.resolution_gauges import RESOLUTION_GAUGES, RESOLUTION_LABELS, ResolutionGauges
from rlaas.control.resolutions import ResolutionStore
from rlaas.control.state import StateDatabase
from rlaas.decisions.effectiveness import Resolution
from rlaas.errors import ConfigurationError, ConflictError, InvalidInputError
from rlaas.fronts import Candidate, Front
from rlaas.objectives import Objective, Rule

OBJECTIVES = (
    Objective(name="latency", unit="ms", direction="minimize", low=0.0, high=10.0),
    Objective(name="throughput", unit="Mbit/s", direction="maximize", low=0.0, high=20.0),
)
SECOND = 1_000_000


def _front(**values: tuple[float, float]) -> Front:
    members = [Candidate(name=k, kind="policy", mean=v, half_width=(0.0, 0.0)) for k, v in values.items()]
    return Front(scenario="toy", objectives=OBJECTIVES, candidates=tuple(members))


LATER = _front(a=(5.0, 10.0), b=(5.0, 8.0), c=(2.0, 12.0))


def _resolution(number: int, **changes: Any) -> Resolution:
    fields: dict[str, Any] = {
        "id": f"r{number:03}",
        "time_us": number * SECOND,
        "scenario": "toy",
        "mode": "normal",
        "step": "live",
        "candidate": "a",
        "values": {"latency": 5.0, "throughput": 10.0},
        "weights": {"latency": 0.5, "throughput": 0.5},
        "rules": (Rule(objective="latency", at_most=9.0),),
        **changes,
    }
    return Resolution(**fields)


STORY = [
    _resolution(1),
    _resolution(2, candidate="b", rules_hit=("latency <= 9",)),
    _resolution(3, mode="Notfall ü", candidate="b", step="last_good", rules_hit=("latency <= 9", "energy <= 9")),
    _resolution(4, candidate="safe", step="safe_default", values={}),
]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server of this test's own, on a socket."""
    initdb = shutil.which("initdb")
    if initdb is None or importlib.util.find_spec("psycopg") is None:
        pytest.skip("needs PostgreSQL's initdb and psycopg")
    folder = Path(initdb).resolve().parent
    # Unix sockets allow some 100 characters, and pytest's own folders let in one user only.
    root = Path(tempfile.mkdtemp(prefix="pg"))
    runs_as: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            root.rmdir()
            pytest.skip("needs a user named postgres")
        runs_as = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        os.chown(root, owner.pw_uid, owner.pw_gid)
    data = root / "data"

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=root, **runs_as)

    try:
        run(folder / "initdb", "-D", data, "-A", "trust", "-U", "rlaas", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories='{root}' -c fsync=off"
        run(folder / "pg_ctl", "-D", data, "-l", root / "log", "-w", "-o", options, "start")
        try:
            yield f"postgresql+psycopg://rlaas@/postgres?host={root}"
        finally:
            run(folder / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(root)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    found: str = request.getfixturevalue("postgres")
    return found


@pytest.fixture
def tenant() -> str:
    """Of this test alone: tests share the PostgreSQL database."""
    return f"t-{uuid.uuid4().hex}"


@pytest.fixture
def database(url: str) -> Iterator[StateDatabase]:
    opened = StateDatabase(url)
    yield opened
    opened.close()


def test_figures_equal_those_of_the_log_in_memory(database: StateDatabase, tenant: str) -> None:
    store, log = ResolutionStore(database, tenant), ResolutionLog()
    for one in STORY:
        store.record(one)
        log.record(one)
    outcome = {"r004": {"latency": 9.0, "throughput": 2.0}}
    assert store.settle(LATER, time_us=3 * SECOND) == log.settle(LATER, time_us=3 * SECOND)
    assert store.settle(LATER, time_us=9 * SECOND, outcomes=outcome) == log.settle(
        LATER, time_us=9 * SECOND, outcomes=outcome
    )
    for since, until in ((0, 10), (2, 4), (3, 4), (7, 9), (4, 2)):
        window = {"since_us": since * SECOND, "until_us": until * SECOND}
        assert store.effectiveness("toy", **window) == log.effectiveness(**window), window
    assert store.effectiveness("toy", since_us=0, until_us=10 * SECOND).settled == 4
    newest, *rest = store.latest("toy")
    assert newest[0] == STORY[3]
    assert newest[1] is not None
    assert newest[1].observed
    assert [one for one, _ in rest] == STORY[2::-1]
    assert store.latest("toy", limit=1) == (newest,)


def test_resolutions_outlive_the_process_and_belong_to_one_tenant(url: str, tenant: str) -> None:
    first = StateDatabase(url)
    ResolutionStore(first, tenant).record(STORY[0])
    first.close()
    second = StateDatabase(url)
    store = ResolutionStore(second, tenant)
    assert [one for one, _ in store.latest("toy")] == [STORY[0]]
    assert store.scenarios() == ("toy",)
    other = ResolutionStore(second, f"{tenant}-other")
    assert other.scenarios() == ()
    assert other.latest("toy") == ()
    assert other.settle(LATER, time_us=9 * SECOND) == ()
    other.record(STORY[0])
    assert store.latest("toy")[0][1] is None
    second.close()


def test_the_same_resolution_twice_is_one_and_another_is_a_conflict(database: StateDatabase, tenant: str) -> None:
    store = ResolutionStore(database, tenant)
    store.record(STORY[1])
    store.record(STORY[1])
    with pytest.raises(ConflictError, match="r002 is recorded already"):
        store.record(_resolution(2, candidate="c"))
    assert [one for one, _ in store.latest("toy")] == [STORY[1]]
    with pytest.raises(InvalidInputError, match="129 characters"):
        store.record(_resolution(3, scenario="s" * 129))


def test_several_controls_record_and_settle_at_the_same_time(url: str, tenant: str) -> None:
    settled: list[str] = []
    errors: list[BaseException] = []
    gate = threading.Barrier(3)

    def control(own: int) -> None:
        try:
            database = StateDatabase(url)
            gate.wait()
            store = ResolutionStore(database, tenant)
            for number in range(10):
                store.record(_resolution(number))
                store.record(_resolution(100 * own + number, id=f"own-{own}-{number}"))
            gate.wait()
            settled.extend(one.id for one in store.settle(LATER, time_us=10_000 * SECOND))
            database.close()
        except BaseException as problem:
            errors.append(problem)
            gate.abort()

    threads = [threading.Thread(target=control, args=(own,)) for own in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(settled) == len(set(settled)) == 40
    database = StateDatabase(url)
    figures = ResolutionStore(database, tenant).effectiveness("toy", since_us=0, until_us=10_000 * SECOND)
    database.close()
    assert (figures.resolutions, figures.settled) == (40, 40)


def test_what_is_too_old_is_forgotten_by_scenario(database: StateDatabase, tenant: str) -> None:
    store = ResolutionStore(database, tenant, keep_s=10)
    store.record(_resolution(1))
    store.record(_resolution(1, id="other", scenario="other"))
    store.record(_resolution(11))
    assert len(store.latest("toy")) == 2
    store.record(_resolution(12))
    assert [one.id for one, _ in store.latest("toy")] == ["r012", "r011"]
    assert len(store.latest("other")) == 1


def test_an_outcome_of_another_scenario_settles_nothing(database: StateDatabase, tenant: str) -> None:
    store = ResolutionStore(database, tenant)
    store.record(STORY[0])
    store.record(_resolution(1, id="other", scenario="other"))
    with pytest.raises(InvalidInputError, match="unknown resolution 'other'"):
        store.settle(LATER, time_us=9 * SECOND, outcomes={"other": {"latency": 1.0, "throughput": 1.0}})
    assert store.latest("toy")[0][1] is None


def test_a_resolution_over_other_objectives_keeps_no_other_from_being_judged(
    database: StateDatabase, tenant: str
) -> None:
    store = ResolutionStore(database, tenant)
    store.record(_resolution(1, id="old", values={"cost": 1.0}, weights={"cost": 1.0}, rules=()))
    store.record(_resolution(2))
    assert [one.id for one in store.settle(LATER, time_us=9 * SECOND)] == ["r002"]
    with pytest.raises(InvalidInputError, match="resolution old is over cost"):
        store.settle(LATER, time_us=9 * SECOND, outcomes={"old": {"cost": 2.0}})
    cheap = Front(
        scenario="toy",
        objectives=(Objective(name="cost", unit="EUR", direction="minimize", low=0.0, high=10.0),),
        candidates=(Candidate(name="a", kind="policy", mean=(1.0,), half_width=(0.0,)),),
    )
    assert [one.id for one in store.settle(cheap, time_us=9 * SECOND)] == ["old"]


def test_a_choice_that_nothing_is_known_of_is_not_read_again_and_again(
    database: StateDatabase, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ResolutionStore(database, tenant)
    tricky = '"values": {}'
    store.record(_resolution(1, candidate="safe", step="safe_default", values={}))
    store.record(_resolution(2, candidate=tricky, step="safe_default"))
    store.record(_resolution(3, candidate="b", step="safe_default", values={}))  # its front came later
    read: list[str] = []
    parse = Resolution.from_dict

    def counted(document: Any) -> Resolution:
        read.append(document["id"])
        return parse(document)

    monkeypatch.setattr(Resolution, "from_dict", counted)
    assert [one.id for one in store.settle(LATER, time_us=9 * SECOND)] == ["r002", "r003"]
    assert read == ["r002", "r003"]
    outcome = {"r001": {"latency": 1.0, "throughput": 1.0}}
    assert [one.id for one in store.settle(LATER, time_us=9 * SECOND, outcomes=outcome)] == ["r001"]


def test_gauges_show_the_latest_window(database: StateDatabase, tenant: str) -> None:
    store = ResolutionStore(database, tenant)
    for one in STORY:
        store.record(one)
    store.settle(LATER, time_us=9 * SECOND)
    gauges = ResolutionGauges(store, tenant, window_s=3, clock=lambda: 4 * SECOND)
    values = gauges.values()
    assert {name for name, _ in values} == set(RESOLUTION_GAUGES)
    assert {labels[: len(RESOLUTION_LABELS)] for _, labels in values} == {(tenant, "toy")}
    found = {(name, *labels[len(RESOLUTION_LABELS) :]): value for (name, labels), value in values.items()}
    # The window holds the resolutions of the seconds 2, 3 and 4; two of them chose b, where c is best.
    regret = 0.5 * (0.8 + 0.6) - 0.5 * (0.5 + 0.4)
    assert found == {
        ("rlaas_resolutions", "last_good"): 1,
        ("rlaas_resolutions", "live"): 1,
        ("rlaas_resolutions", "safe_default"): 1,
        ("rlaas_resolutions_in_mode", "Notfall ü"): 1,
        ("rlaas_resolutions_in_mode", "normal"): 2,
        ("rlaas_resolution_rule_hits", "energy <= 9"): 1,
        ("rlaas_resolution_rule_hits", "latency <= 9"): 2,
        ("rlaas_resolution_mode_changes",): 2,
        ("rlaas_resolution_choice_changes",): 2,
        ("rlaas_resolutions_settled",): 2,
        ("rlaas_resolution_regret_mean",): pytest.approx(regret),
        ("rlaas_resolution_regret_max",): pytest.approx(regret),
        ("rlaas_resolution_regret_in_mode", "Notfall ü"): pytest.approx(regret),
        ("rlaas_resolution_regret_in_mode", "normal"): pytest.approx(regret),
    }


@pytest.fixture
def on_ray() -> Iterator[None]:
    with started_ray():
        yield


@pytest.mark.ray
@pytest.mark.usefixtures("on_ray")
def test_ray_exports_the_gauges_and_forgets_what_is_over(tmp_path: Path) -> None:
    import ray

    database = StateDatabase(f"sqlite:///{tmp_path / 'state.db'}")
    store = ResolutionStore(database, "default")
    for one in STORY:
        store.record(one)
    now = [4 * SECOND]
    gauges = ResolutionGauges(store, "default", clock=lambda: now[0])
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

    def exported(*, until: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        """Resolutions by mode, once they are so: Ray exports some ten seconds late."""
        found: dict[str, float] = {}
        for _ in range(120):
            gauges.publish()
            try:
                text = httpx.get(url, timeout=10).text
            except httpx.TransportError:
                text = ""
            found = {
                sample.labels["mode"]: sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name == "ray_rlaas_resolutions_in_mode"
            }
            if until(found):
                break
            time.sleep(0.5)
        return found

    assert exported(until=lambda found: len(found) == 2) == {"normal": 3, "Notfall \\xfc": 1}
    now[0] += 10_000 * SECOND
    assert exported(until=lambda found: not any(found.values())) == {"normal": 0, "Notfall \\xfc": 0}
    database.close()


def test_series_stay_bounded_however_many_rules_users_name(database: StateDatabase, tenant: str) -> None:
    store = ResolutionStore(database, tenant)
    store.record(_resolution(1, rules_hit=tuple(f"rule {i}" for i in range(80))))
    store.record(_resolution(2, rules_hit=("rule 79",)))
    values = ResolutionGauges(store, tenant, clock=lambda: 3 * SECOND).values()
    hits = {labels[-1]: value for (name, labels), value in values.items() if name == "rlaas_resolution_rule_hits"}
    assert len(hits) == 51
    assert (hits["rule 79"], hits["(others)"]) == (2, 30)


def test_bad_options(tmp_path: Path) -> None:
    database = StateDatabase(f"sqlite:///{tmp_path / 'state.db'}")
    store = ResolutionStore(database, "default")
    for wrong in (0, -1, float("nan"), True, "1"):
        with pytest.raises(ConfigurationError, match="keep_s"):
            ResolutionStore(database, "default", keep_s=wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="window_s"):
            ResolutionGauges(store, "default", window_s=wrong)  # type: ignore[arg-type]
    database.close()
