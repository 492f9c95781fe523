"""Whole federations on real actors: late, failing and killed sites, aborted rounds, and a driver that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from federated_kit import PPO, SAC, LocalRoster, federation, run_locally
from support.processes import environment

from rlaas.bundles import load_bundle
from rlaas.errors import ConfigurationError, TrainingError
from rlaas.registry import Store
from rlaas.settings import load_settings
from rlaas.training.federated import FederationConfig, federate, load_newest
from rlaas.training.federated.coordinator import Coordinator
from rlaas.training.federated.privacy import epsilon_of
from rlaas.training.federated.template import Template

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def _kill(coordinator: Coordinator, name: str) -> None:
    """End a site's process as a power cut does."""
    actor = coordinator.roster._actors[name]
    pid = ray.get(actor.__ray_call__.remote(lambda _site: os.getpid()))
    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def story(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Seven rounds of one federation of three sites (any two of them open a mask), in which all sorts of things happen.

    1 all goes well; 2 south is late; 3 all is well again; 4 centre and south fail at first; 5 centre is killed before
    it masks; 6 south is killed after the keys were exchanged; 7 two are killed then.
    """
    folder = tmp_path_factory.mktemp("story")
    moods = {name: folder / f"{name}.mood" for name in ("north", "centre", "south")}
    config = federation(
        PPO | {"scenario": "federated_kit:MoodyToy"},
        rounds=7,
        sites=[{"name": n, "cpus": 0.1, "options": {"mood": str(mood)}} for n, mood in moods.items()],
        attempts=2,
        deadline_s=20.0,
    )
    seen: list[tuple[int, str]] = []
    models: list[np.ndarray] = []

    def happens(number: int, phase: str) -> None:
        seen.append((number, phase))
        first = seen.count((number, phase)) == 1
        if (number, phase) == (2, "invited"):
            moods["south"].write_text("slow")
            coordinator.config = config.model_copy(update={"deadline_s": 5.0})
        elif (number, phase) == (2, "trained"):
            moods["south"].unlink()
            coordinator.config = config
        elif (number, phase) == (4, "invited") and first:
            for name in ("centre", "south"):
                moods[name].write_text("fail")
        elif (number, phase) == (4, "trained") and first:
            for name in ("centre", "south"):
                moods[name].unlink()
        elif (number, phase) == (5, "trained"):
            _kill(coordinator, "centre")
        elif (number, phase) == (6, "shares"):
            _kill(coordinator, "south")
        elif (number, phase) == (7, "invited"):
            coordinator.config = config.model_copy(update={"attempts": 1})
        elif (number, phase) == (7, "shares"):
            models.append(coordinator.state.parameters.copy())
            _kill(coordinator, "north")
            _kill(coordinator, "south")

    template = Template(config)
    coordinator = Coordinator(config, folder / "federation", template, on_phase=happens)
    models.append(coordinator.state.parameters.copy())
    try:
        with pytest.raises(TrainingError) as caught:
            coordinator.run(lambda _result: models.append(coordinator.state.parameters.copy()))
    finally:
        template.stop()
    return SimpleNamespace(
        config=config, folder=folder / "federation", rounds=coordinator.state.rounds, models=models, error=caught.value
    )


def test_a_late_site_is_left_out_and_invited_again(story: SimpleNamespace) -> None:
    first, second, third = story.rounds[:3]
    assert first.sites == third.sites == ("north", "centre", "south")
    assert not first.left_out
    assert second.sites == ("north", "centre")
    assert second.left_out == {"south": "training: late"}
    assert second.attempt == 1
    assert second.decisions == 256 * 2
    assert third.decisions == 256 * 3


def test_a_round_with_too_few_sites_is_repeated(story: SimpleNamespace) -> None:
    fourth = story.rounds[3]
    assert fourth.attempt == 2
    assert fourth.sites == ("north", "centre", "south")
    (why,) = fourth.failures
    assert why.startswith("1 sites trained, 2 are needed")
    assert "south: training: RuntimeError: in a mood" in why


def test_a_site_killed_before_masking_costs_the_round_nothing(story: SimpleNamespace) -> None:
    fifth = story.rounds[4]
    assert fifth.sites == ("north", "south")
    assert fifth.left_out == {"centre": "keys: its process is gone"}
    assert (fifth.attempt, fifth.decisions) == (1, 512.0)


def test_the_masks_of_a_site_killed_after_the_key_exchange_are_recovered(story: SimpleNamespace) -> None:
    sixth = story.rounds[5]
    # Centre is back in a process of its own.
    assert sixth.sites == ("north", "centre")
    assert sixth.left_out == {"south": "masked: its process is gone"}
    # What masks were left would have made noise of everything.
    assert sixth.decisions == 512.0
    assert 0.0 < sixth.moved < 1.0
    assert all(np.isfinite(list(sixth.losses.values())))


def test_below_the_threshold_the_round_is_aborted_and_the_model_unchanged(story: SimpleNamespace) -> None:
    assert len(story.rounds) == 6
    message = story.error.message
    assert message.startswith("round 7 failed 1 times, the last time because 1 sites answered in step 'masked'")
    assert "north: masked: its process is gone; south: masked: its process is gone" in message
    assert "the model of round 6 is unchanged" in message
    assert story.error.field == "min_sites"
    state = load_newest(story.folder, story.config.digest())
    assert state is not None
    assert state.finished == 6
    before, after = story.models[-2:]
    assert (before == after).all()
    assert (state.parameters == after).all()


def test_secure_rounds_tell_no_weights_and_report_sums(story: SimpleNamespace) -> None:
    for result in story.rounds:
        assert result.weights == {}
        assert set(result.losses) == {"policy_loss", "value_loss", "entropy"}
        assert 0.0 < result.rounding < 1e-12
        assert result.epsilon is None


def test_a_site_that_fits_no_node_is_refused_at_once(tmp_path: Path) -> None:
    sites = [{"name": "a", "cpus": 0.1}, {"name": "b", "cpus": 0.1, "resources": {"site-b": 0.01}}]
    with pytest.raises(ConfigurationError, match="site 'b': no node has the resource 'site-b'; the cluster has CPU"):
        federate(federation(sites=sites), output=tmp_path)


def test_a_site_whose_options_cannot_work_is_named(tmp_path: Path) -> None:
    sites = [{"name": "b", "cpus": 0.1, "options": {"colour": "red"}}]
    with pytest.raises(ConfigurationError, match=r"site 'b': .*colour") as caught:
        federate(federation(sites=sites, secure=None), output=tmp_path)
    assert caught.value.field == "sites.b"


def test_a_site_that_gets_no_place_is_named_with_what_it_needs(tmp_path: Path) -> None:
    sites = [{"name": "a", "cpus": 100}, {"name": "b", "cpus": 100}]
    config = federation(sites=sites, attempts=1, start_s=1.0)
    with pytest.raises(TrainingError, match=r"a: start: not ready within 1 s; it needs CPU 100 \(free ") as caught:
        federate(config, output=tmp_path)
    assert "0 sites trained, 2 are needed" in caught.value.message


DRIVER = """
import sys
import ray
from pathlib import Path
from federated_kit import SAC, federation
from rlaas.settings import load_settings
from rlaas.training.federated import federate

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
config = federation(SAC, count=2, rounds=4, decisions=1_024, keep_site_state=True)
federate(
    config,
    output=Path(sys.argv[2]),
    settings=load_settings(home=sys.argv[3]),
    on_phase=lambda number, phase: print(number, phase, flush=True),
)
"""


def test_a_federation_goes_on_bit_for_bit_after_its_driver_was_killed(tmp_path: Path) -> None:
    config: FederationConfig = federation(SAC, count=2, rounds=4, decisions=1_024, keep_site_state=True)
    whole = run_locally(config, tmp_path / "whole").state
    home, output = tmp_path / "home", tmp_path / "killed"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    address = ray.get_runtime_context().gcs_address
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, address, str(output), str(home)],
        env={**environment(home), "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    for line in driver.stdout:
        # Round 3 is half done: its masks are out, its sum is not known yet.
        if line.split() == ["3", "masked"]:
            driver.kill()
            break
    assert driver.wait(60) == -signal.SIGKILL
    state = load_newest(output, config.digest())
    assert state is not None
    assert state.finished == 2
    run = federate(config, output=output, settings=load_settings(home=home))
    assert [r.number for r in run.rounds] == [1, 2, 3, 4]
    for ours, theirs in zip(run.rounds, whole.rounds, strict=True):
        assert (ours.moved, ours.losses, ours.decisions) == (theirs.moved, theirs.losses, theirs.decisions)
    state = load_newest(output, config.digest())
    assert state is not None
    assert state.parameters.tobytes() == whole.parameters.tobytes()
    assert (state.moments, state.scales.tolist()) == (whole.moments, whole.scales.tolist())
    assert load_bundle(run.bundle).manifest.lineage["federation"] == {
        "name": "toys",
        "method": "fedavg",
        "share": "all",
        "sites": ["north", "centre"],
        "rounds": 4,
        "secure_threshold": 2,
        "privacy_unit": None,
        "epsilon": None,
        "delta": None,
        "stopped": None,
    }
    _check_runs(run.mlflow_run_id, load_settings(home=home))


def _check_runs(parent: str | None, settings: Any) -> None:
    """One run for the federation and one nested run a round, those of the killed driver among them."""
    store = Store(settings)
    runs = store.call("search_runs", [store.experiment()], f"tags.`mlflow.parentRunId` = '{parent}'")
    by_round = {run.data.tags["rlaas.round"]: run for run in runs}
    assert sorted(by_round) == ["1", "2", "3", "4"]
    assert len(runs) == 4
    third = by_round["3"]
    assert third.info.status == "FINISHED"
    assert third.data.tags["rlaas.sites"] == "north, centre"
    assert third.data.metrics["sites"] == 2
    assert {"critic_loss", "entropy", "moved", "decisions", "seconds"} <= set(third.data.metrics)
    curve = store.call("get_metric_history", parent, "round/moved")
    assert sorted(point.step for point in curve) == [1, 2, 3, 4]
    assert store.call("get_run", parent).data.params["sites"] == "north, centre"


PRIVATE: dict[str, Any] = {
    "share": "policy",
    "normaliser": "fixed",
    "observation_ranges": {"share": (0.0, 1.0)},
    "privacy": {"clip": 0.05, "noise_multiplier": 2.0, "delta": 1e-3, "epsilon": 4.0},
    "rounds": 9,
}


def test_private_rounds_state_what_they_spend_and_stop_before_the_budget_is_exceeded(tmp_path: Path) -> None:
    config = federation(**PRIVATE)
    coordinator = run_locally(config, tmp_path)
    spent = [result.epsilon for result in coordinator.state.rounds]
    assert 1 < len(spent) < 9
    for number, (result, epsilon) in enumerate(zip(coordinator.state.rounds, spent, strict=True), start=1):
        # One honest site's noise at least: min_sites 2, one of them colluding.
        assert epsilon == pytest.approx(epsilon_of(number * 0.5 / 2.0**2, 1e-3), rel=1e-3)
        assert epsilon is not None
        assert epsilon <= 4.0
        assert result.delta == 1e-3
        assert result.losses == {}
        assert result.decisions == 0.0
        assert result.noise == pytest.approx(0.05 * 2.0 / 3)
    assert epsilon_of((len(spent) + 1) * 0.5 / 2.0**2, 1e-3) > 4.0
    assert coordinator.stopped is not None
    assert coordinator.stopped.startswith("privacy budget: epsilon ")
    # Three sites' shares of noise, each 0.1 strong, make up nearly all of the step.
    size = coordinator.state.parameters.size
    for result in coordinator.state.rounds:
        assert result.moved == pytest.approx(np.sqrt(3 * size) * 0.1 / 3, rel=0.25)


def test_privacy_is_charged_before_the_sum_can_be_known(tmp_path: Path) -> None:
    config = federation(**PRIVATE, attempts=1)
    template = Template(config)

    def interrupt(number: int, phase: str) -> None:
        if phase == "revealed":
            raise KeyboardInterrupt

    coordinator = Coordinator(config, tmp_path, template, on_phase=interrupt)
    coordinator.roster = LocalRoster(config, tmp_path, template.layout)
    with pytest.raises(KeyboardInterrupt):
        coordinator.run()
    template.stop()
    state = load_newest(tmp_path, config.digest())
    assert state is not None
    assert (state.finished, state.parameters.tolist()) == (0, coordinator.state.parameters.tolist())
    assert state.rho == pytest.approx(0.5 / 2.0**2, rel=1e-3)


def test_plain_and_secure_federations_learn_the_same(tmp_path: Path) -> None:
    plain = run_locally(federation(rounds=3, secure=None), tmp_path / "plain")
    secure = run_locally(federation(rounds=3), tmp_path / "secure")
    np.testing.assert_allclose(plain.state.parameters, secure.state.parameters, atol=1e-4)
    assert plain.state.moments == secure.state.moments
    for result in plain.state.rounds:
        assert result.weights == pytest.approx(dict.fromkeys(("north", "centre", "south"), 1 / 3))
