"""The off-policy gate between versions and live traffic: a real registry, a real state database, a real lake."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import policy_bundle
from support.experiment_kit import document
from support.gate_kit import HOUR_US, favours, log, preference_of

from rlaas.bundles import BundlePolicy, load_bundle
from rlaas.control.experiments.documents import parse_document
from rlaas.control.experiments.service import ExperimentService
from rlaas.control.gating import GateDeclaration, GateEvent, Override, StoredGate
from rlaas.control.rollouts.store import OvertakenError
from rlaas.control.service import ControlService
from rlaas.control.variant_names import RESERVED
from rlaas.errors import ConflictError, InvalidInputError, NotFoundError
from rlaas.lake import Lake
from rlaas.registry import Registry
from rlaas.settings import Settings, load_settings

DECLARED = GateDeclaration(value="throughput", estimator="snipw")
CANARY = {"kind": "canary"}


def one(version: int, **more: Any) -> list[dict[str, Any]]:
    return [{"name": "next", "version": version, "weight": 1, **more}]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A registry with three versions of toy and a policy in a box; every test has its own database and lake."""
    root = tmp_path_factory.mktemp("gating")
    settings = load_settings(home=root / "home")
    registry = Registry(settings)
    for seed in (1, 2, 3):
        registry.register("toy", policy_bundle(root / f"v{seed}", seed=seed))
    for seed in (4, 5):
        registry.register("box", policy_bundle(root / f"box{seed}", kind="box", actions=2, seed=seed))
    return settings


class World:
    """A Control with version 1 live, and the lake that its gate reads."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        own = {"state_url": f"sqlite:///{folder / 'state.db'}", "lake_url": str(folder / "lake")}
        self.control = ControlService(settings.model_copy(update=own))
        self.lake = Lake(folder / "lake")
        self.control.promote("toy", 1)
        self.bundles = {version: self.bundle("toy", version) for version in (1, 2, 3)}

    def bundle(self, name: str, version: int) -> BundlePolicy:
        return load_bundle(self.control.registry.path(name, version))

    def logged(self, **options: Any) -> None:
        """What version 1 logged while it explored: version 2 is better, version 3 is worse."""
        log(self.lake, self.bundles[1], favours(self.bundles[2], self.bundles[3]), **options)

    @property
    def live(self) -> list[int]:
        return [variant.version for variant in self.control.status("toy")[0].variants]

    def kinds(self) -> list[tuple[str, int | None]]:
        return [(event["kind"], event["version"]) for event in reversed(self.control.gates.history("toy"))]


@pytest.fixture
def world(home: Settings, tmp_path: Path) -> World:
    return World(home, tmp_path)


WAYS: dict[str, Callable[[ControlService, int], Any]] = {
    "promote": lambda control, version: control.promote("toy", version),
    "deployment": lambda control, version: control.create_deployment("toy", one(version)),
    "split": lambda control, version: control.create_deployment(
        "toy", [{"name": "old", "version": 1, "weight": 9}, {"name": "new", "version": version, "weight": 1}]
    ),
    "canary": lambda control, version: control.create_deployment("toy", one(version), strategy=CANARY),
    "blue_green": lambda control, version: control.create_deployment(
        "toy", one(version), strategy={"kind": "blue_green"}
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_live_traffic_asks(world: World, way: str) -> None:
    world.logged()
    world.control.gates.declare("toy", DECLARED)
    with pytest.raises(ConflictError) as refused:
        WAYS[way](world.control, 3)
    said = refused.value.message
    assert refused.value.field == "override"
    for part in ("toy:3", "failed: snipw", "interval", "effective sample size", "asked for", 'override: "reason"'):
        assert part in said
    assert "\n" not in said
    assert world.live == [1]
    WAYS[way](world.control, 2)
    assert 2 in world.live
    assert world.kinds() == [("declared", None), ("refused", 3), ("passed", 2)]
    report = world.control.gates.history("toy")[0]["report"]
    assert report["verdict"]["outcome"] == "passed"
    assert report["verdict"]["lines"][0]["estimator"] == "snipw"
    assert report["rows"] == {"read": 1500, "counted": 1500, "left_out": {}}


@pytest.mark.parametrize("way", WAYS)
def test_without_a_gate_nothing_is_asked(world: World, way: str) -> None:
    WAYS[way](world.control, 3)
    assert 3 in world.live
    assert world.control.gates.history("toy") == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n": 60}, "no overlap"),
        ({"age_us": 9 * 24 * HOUR_US}, "days old"),
        ({"age_us": 40 * 24 * HOUR_US}, "0 of 0 decisions"),
        ({"explore": False}, "0 of 1500 decisions with an outcome count (1500 without a propensity)"),
        ({"candidate": "point-3"}, "1500 chosen from a front"),
        ({"policy": "other"}, "0 of 0 decisions"),
    ],
)
def test_a_log_that_says_too_little_lets_nobody_through(world: World, options: dict[str, Any], says: str) -> None:
    world.logged(**options)
    world.control.gates.declare("toy", DECLARED)
    with pytest.raises(ConflictError, match="no verdict") as refused:
        world.control.promote("toy", 2)
    assert says in refused.value.message
    assert world.live == [1]


def test_what_the_log_hardly_shows_has_no_overlap(world: World) -> None:
    # Every choice but the one that version 2 takes is logged.
    bundle = world.bundles[2]
    log(world.lake, world.bundles[1], favours(bundle), n=2000, epsilon=0.9)
    shown = world.lake.read("silver.transitions")
    rows = np.array(shown.column("observation").to_pylist(), dtype=np.float32)
    same = np.array(shown.column("action").to_pylist())[:, 0] == bundle.act(rows, preference_of(bundle))[0]
    few = np.flatnonzero(same)[40:]
    delta = world.lake.open("silver.transitions")
    assert delta is not None
    kept = shown.take(np.setdiff1d(np.arange(len(same)), few))
    world.lake.replace(delta, kept, "tenant = 'default'")
    world.control.gates.declare("toy", DECLARED)
    with pytest.raises(ConflictError, match=r"no overlap: \d+ effective of \d+ logged; at least 100 are needed"):
        world.control.promote("toy", 2)


def test_an_override_is_kept_with_who_when_and_the_report(world: World) -> None:
    world.logged()
    world.control.gates.declare("toy", DECLARED, actor="ada")
    world.control.promote("toy", 3, override=Override("the log is from another country", "grace"))
    assert world.live == [3]
    event = world.control.gates.history("toy")[0]
    assert (event["kind"], event["version"], event["actor"]) == ("overridden", 3, "grace")
    assert event["reason"] == "the log is from another country"
    assert event["report"]["verdict"]["outcome"] == "failed"
    assert event["report"]["override"] == {
        "reason": "the log is from another country",
        "by": "grace",
        "time_us": event["report"]["override"]["time_us"],
    }
    assert event["time_us"] >= event["report"]["override"]["time_us"] > 1_600_000_000_000_000


def test_an_override_of_what_passes_is_none(world: World) -> None:
    world.logged()
    world.control.gates.declare("toy", DECLARED)
    world.control.promote("toy", 2, override=Override("to be sure"))
    assert world.kinds()[-1] == ("passed", 2)
    assert world.control.gates.history("toy")[0]["report"]["override"] is None


@pytest.mark.parametrize(
    ("better", "worse", "asked"), [("higher", 3, "a lift of -0.5 or more"), ("lower", 2, "a lift of +0.5 or less")]
)
def test_a_refusal_says_what_would_do(world: World, better: Any, worse: int, asked: str) -> None:
    world.logged()
    world.control.gates.declare("toy", DECLARED.model_copy(update={"better": better, "margin": 0.5}))
    with pytest.raises(ConflictError, match="failed") as refused:
        world.control.promote("toy", worse)
    assert asked in refused.value.message
    world.control.promote("toy", 5 - worse)


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_an_override_says_why(reason: str) -> None:
    with pytest.raises(InvalidInputError, match="1 to 500 characters") as refused:
        Override(reason)
    assert refused.value.field == "override"


def test_who_has_served_comes_back_without_being_asked(world: World) -> None:
    world.control.create_deployment("toy", one(3))
    world.control.create_deployment("toy", one(2), fallback=3)
    world.control.gates.declare("toy", DECLARED)  # of an empty lake: nobody passes
    world.control.promote("toy", 1)
    world.control.promote("toy", 3)
    world.control.delete_deployment("toy")
    world.control.create_deployment("toy", one(3))
    world.control.create_deployment("toy", one(1), strategy={"kind": "blue_green"})
    assert world.kinds() == [("declared", None)]
    assert world.control.gates.describe("toy")["served"] == [1, 2, 3]


def test_shadows_warm_versions_and_fallbacks_are_not_live(world: World) -> None:
    world.control.gates.declare("toy", DECLARED)
    shadow = {"name": "shadow", "version": 3, "weight": 0, "shadow": True}
    warm = {"name": "warm", "version": 2, "weight": 0}
    champion = {"name": "champion", "version": 1, "weight": 1}
    world.control.create_deployment("toy", [champion, shadow, warm], fallback=3)
    assert world.kinds() == [("declared", None)]
    # None of that counts as having served.
    for version in (2, 3):
        with pytest.raises(ConflictError, match="no verdict"):
            world.control.promote("toy", version)
    assert world.control.gates.describe("toy")["served"] == [1]


def test_a_shadow_rollout_is_not_asked(world: World) -> None:
    world.control.gates.declare("toy", DECLARED)
    world.control.create_deployment("toy", one(3), strategy={"kind": "shadow"})
    assert world.kinds() == [("declared", None)]


def test_a_canary_that_was_rolled_back_is_asked_again(world: World) -> None:
    world.logged()
    world.control.gates.declare("toy", DECLARED)
    world.control.create_deployment("toy", one(2), strategy=CANARY)
    world.control.rollouts.act("toy", 1, "rollback", actor="ada", reason="odd")
    world.control.promote("toy", 2)
    assert world.kinds() == [("declared", None), ("passed", 2), ("passed", 2)]


def test_other_aliases_and_a_champion_moved_by_hand(world: World) -> None:
    world.control.gates.declare("toy", DECLARED)
    world.control.promote("toy", 3, alias="candidate")
    assert world.live == [1]
    # A policy that never had a deployment: its champion is not adopted past its gate.
    world.control.registry.set_alias("box", "champion", 1)
    world.control.gates.declare("box", DECLARED)
    assert world.control.adopt_champions() == []
    assert [event["kind"] for event in world.control.gates.history("box")] == ["refused", "declared"]
    world.control.gates.remove("box")
    assert [record.policy for record in world.control.adopt_champions()] == ["box"]


def test_a_declaration_holds_until_another_or_none(world: World) -> None:
    gates = world.control.gates
    assert gates.describe("toy") == {"policy": "toy", "gate": None, "served": []}
    first = gates.declare("toy", DECLARED, actor="ada")
    assert first["gate"]["actor"] == "ada"
    assert first["gate"]["metric"] == "throughput"
    assert gates.declare("toy", DECLARED, actor="grace") == first
    second = gates.declare("toy", DECLARED.model_copy(update={"margin": 1.0}), actor="grace")
    assert second["gate"]["declared_us"] > first["gate"]["declared_us"]
    gates.remove("toy", actor="grace")
    with pytest.raises(NotFoundError, match="no gate is declared for 'toy'"):
        gates.remove("toy")
    with pytest.raises(NotFoundError, match="no gate is declared"):
        gates.judge("toy", 2)
    assert [(e["kind"], e["actor"]) for e in gates.history("toy")] == [
        ("removed", "grace"),
        ("declared", "grace"),
        ("declared", "ada"),
    ]
    world.control.promote("toy", 3)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"value": "colour", "estimator": "snipw"}, "value"),
        ({"mode": "sleepy", "estimator": "snipw"}, "mode"),
        ({"weights": {"colour": 1.0}, "estimator": "snipw"}, "weights objective"),
        ({"weights": {"latency": -1.0}, "estimator": "snipw"}, "weights.latency"),
    ],
)
def test_what_no_version_could_be_judged_by_is_not_declared(world: World, given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        world.control.gates.declare("toy", GateDeclaration(**given))
    assert refused.value.field == field
    assert world.control.gates.describe("toy")["gate"] is None
    with pytest.raises(InvalidInputError, match="dros"):
        world.control.gates.declare("box", GateDeclaration(value="throughput", estimator="dros"))


def test_while_an_experiment_or_a_rollout_runs(world: World, tmp_path: Path) -> None:
    experiments = ExperimentService(world.control, "default", Lake(tmp_path / "lake"))
    gates = world.control.gates
    experiments.create(parse_document(document()))
    for act in (
        lambda: world.control.promote("toy", 2),
        lambda: world.control.create_deployment("toy", one(2), strategy=CANARY),
        lambda: gates.declare("toy", DECLARED),
    ):
        with pytest.raises(ConflictError, match="experiment 'exp' of 'toy' is running; stop it first"):
            act()
    experiments.stop("exp", "none", reason="enough")
    world.control.create_deployment("toy", one(2), strategy=CANARY)
    with pytest.raises(ConflictError, match="rollout 1"):
        gates.declare("toy", DECLARED)


def test_an_experiment_exposes_people_and_is_asked_too(world: World, tmp_path: Path) -> None:
    experiments = ExperimentService(world.control, "default", Lake(tmp_path / "lake"))
    gates = world.control.gates
    gates.declare("toy", DECLARED)
    with pytest.raises(ConflictError, match="toy:2 may not get live traffic"):
        experiments.create(parse_document(document()))
    with pytest.raises(NotFoundError):
        experiments.get("exp")
    promised = gates.promise("toy", 2, Override("ethics board, 12 May", "ada"))
    assert promised["kind"] == "promised"
    experiments.create(parse_document(document()))
    assert world.kinds()[-1] == ("overridden", 2)
    last = gates.history("toy")[0]
    assert (last["reason"], last["actor"]) == ("ethics board, 12 May", "ada")
    # Being in an experiment is not having served: it does not come back by itself, and the promise is used up.
    experiments.stop("exp", "none", reason="enough")
    assert world.live == [1]
    with pytest.raises(ConflictError, match="no verdict"):
        world.control.promote("toy", 2)
    # The experiment that is shipped is live already.
    gates.promise("toy", 2, Override("again"))
    experiments.create(parse_document(document(id="second")))
    experiments.stop("second", "ship", reason="better")
    assert world.live == [2]


def test_a_promise_holds_for_the_declaration_it_was_made_under(world: World) -> None:
    gates = world.control.gates
    gates.declare("toy", DECLARED)
    gates.promise("toy", 2, Override("trust me"))
    gates.declare("toy", DECLARED.model_copy(update={"estimator": "dr"}))
    with pytest.raises(ConflictError, match="no verdict"):
        world.control.promote("toy", 2)
    with pytest.raises(InvalidInputError, match="reason"):
        gates.promise("toy", 2, Override())


def test_another_control_asks_the_same(world: World, home: Settings, tmp_path: Path) -> None:
    world.logged()
    world.control.gates.declare("toy", DECLARED)
    own = {"state_url": f"sqlite:///{tmp_path / 'state.db'}", "lake_url": str(tmp_path / "lake")}
    other = ControlService(home.model_copy(update=own))
    with pytest.raises(ConflictError, match="failed"):
        other.promote("toy", 3)
    assert world.kinds() == [("declared", None), ("refused", 3)]


def test_a_change_that_is_refused_for_another_reason_asks_nobody(world: World) -> None:
    world.control.gates.declare("toy", DECLARED)
    with pytest.raises(ConflictError, match="If-Match"):
        world.control.promote("toy", 2, if_match='"other.7"')
    assert world.kinds() == [("declared", None)]


def test_a_shadow_that_is_promoted_by_hand_is_asked(world: World) -> None:
    world.logged()
    gates, rollouts = world.control.gates, world.control.rollouts
    gates.declare("toy", DECLARED)
    world.control.create_deployment("toy", one(3), strategy={"kind": "shadow"})
    with pytest.raises(ConflictError, match="toy:3 may not get live traffic"):
        rollouts.act("toy", 1, "promote", actor="ada", reason="looks fine")
    assert rollouts.running_number("toy") == 1
    assert world.control.status("toy")[0].weights() == {"champion": 1.0, "next": 0.0}
    gates.promise("toy", 3, Override("seen beside", "grace"))
    rollouts.act("toy", 1, "promote", actor="ada", reason="looks fine")
    assert world.live == [3]
    assert world.kinds()[1:] == [("refused", 3), ("promised", 3), ("overridden", 3)]
    assert [event["actor"] for event in gates.history("toy")[:3]] == ["grace", "grace", "ada"]


def test_a_word_is_asked_for_once_however_often_the_promotion_is_overtaken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates, rollouts = world.control.gates, world.control.rollouts
    gates.declare("toy", DECLARED)
    gates.promise("toy", 3, Override("seen beside", "grace"))
    world.control.create_deployment("toy", one(3), strategy={"kind": "shadow"})
    commit, left = rollouts.store.commit, [OvertakenError("by the controller"), OvertakenError("again")]

    def overtaken(*args: Any, **options: Any) -> None:
        if left:
            raise left.pop()
        commit(*args, **options)

    monkeypatch.setattr(rollouts.store, "commit", overtaken)
    rollouts.act("toy", 1, "promote", actor="ada", reason="looks fine")
    assert world.live == [3]
    assert world.kinds()[1:] == [("promised", 3), ("overridden", 3)]


def test_a_promise_holds_for_a_version_however_it_serves_and_only_if_it_does(world: World) -> None:
    gates = world.control.gates
    gates.declare("toy", DECLARED)  # of an empty lake: nobody passes
    gates.promise("toy", 3, Override("to see", "ada"))
    both = [
        {"name": "old", "version": 1, "weight": 8},
        {"name": "greedy", "version": 3, "weight": 1},
        {"name": "explores", "version": 3, "weight": 1, "explore": True},
    ]
    with pytest.raises(ConflictError, match="toy:2 may not"):
        world.control.create_deployment("toy", [*both, {"name": "two", "version": 2, "weight": 1}])
    assert world.live == [1]
    world.control.create_deployment("toy", both)
    assert world.live == [1, 3, 3]
    assert world.kinds()[2:] == [("refused", 2), ("overridden", 3), ("overridden", 3)]


def test_a_version_that_cannot_be_judged_takes_an_override(world: World) -> None:
    # As declared when the newest version had an outcome that this one lacks.
    gates, other = world.control.gates, GateDeclaration(value="colour", estimator="snipw")
    gates.store.declare("toy", StoredGate(other, 1, "ada"), GateEvent(1, "declared", "ada", ""))
    with pytest.raises(
        ConflictError, match=r"no verdict: snipw gives no estimate: unknown value 'colour'; allowed: .*throughput"
    ) as said:
        world.control.promote("toy", 2)
    assert said.value.field == "override"
    world.control.promote("toy", 2, override=Override("it has none", "grace"))
    assert world.live == [2]
    event = gates.history("toy")[0]
    assert (event["kind"], event["reason"], event["actor"]) == ("overridden", "it has none", "grace")
    assert event["report"]["rows"] == {"read": 0, "counted": 0, "left_out": {}}


@pytest.mark.parametrize("strategy", [None, CANARY])
def test_names_that_the_platform_gives_itself_are_reserved(world: World, strategy: Any) -> None:
    assert RESERVED == ("fallback", "holdout", "layer-holdout", "outside", "safe-default")
    for name in RESERVED:
        with pytest.raises(InvalidInputError, match="reserved: fallback, holdout, layer-holdout") as refused:
            world.control.create_deployment("toy", [{**one(2)[0], "name": name}], strategy=strategy)
        assert refused.value.field == "variants.0.name"
    assert world.live == [1]
