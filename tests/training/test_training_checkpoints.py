"""Runs that are interrupted, killed, starved of disk or fed NaN: what is left, and that they go on unharmed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from rlaas.errors import ConfigurationError, TrainingError
from rlaas.training import TrainingConfig, TrainingRun, build_algorithm, train
from rlaas.training.checkpoints import CheckpointStore
from rlaas.training.resources import needed_resources, wait_for_resources

pytestmark = pytest.mark.ray

BASE: dict[str, Any] = {"scenario": "training_toys:Toy", "seed": 4, "num_envs": 16, "hidden": (16, 16), "gamma": 0.5}
SAC = BASE | {
    "steps": 9_000,
    "batch_size": 64,
    "sac": {"learning_starts": 500, "buffer_size": 3_000, "head_start": 20},
    "checkpoint_interval": 2,
}
PPO = BASE | {
    "scenario": "training_toys:DiscreteToy",
    "steps": 9_000,
    "ppo": {"rollout_length": 32, "minibatch": 128},
    "checkpoint_interval": 3,
}


class Interrupted(Exception):
    pass


def _interrupt_at(iteration: int) -> Callable[[int, int, dict[str, float]], None]:
    calls = 0

    def progress(done: int, of: int, row: dict[str, float]) -> None:
        nonlocal calls
        calls += 1
        if calls == iteration:
            raise Interrupted

    return progress


def _same(first: TrainingRun, second: TrainingRun) -> None:
    mine, theirs = (load_file(run.bundle / "policy.safetensors") for run in (first, second))
    for name, value in mine.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    assert first.curve == second.curve


@pytest.mark.parametrize("values", [SAC, PPO], ids=["sac", "ppo"])
def test_an_interrupted_run_goes_on_bit_for_bit(values: dict[str, Any], local_ray: None, tmp_path: Path) -> None:
    config = TrainingConfig(**values)
    whole = train(config, output=tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(config, output=tmp_path / "parts", progress=_interrupt_at(5))
    seen: list[int] = []
    run = train(
        config, output=tmp_path / "parts", resume=True, progress=lambda done, of, row: seen.append(int(row["step"]))
    )
    # Nothing is done twice beyond one interval.
    assert seen[0] > 2 * 512
    _same(whole, run)


def test_a_killed_run_goes_on_bit_for_bit(local_ray: None, tmp_path: Path) -> None:
    config = TrainingConfig(**PPO)
    code = (
        "import sys; from pathlib import Path; from rlaas.training import TrainingConfig, train\n"
        "train(TrainingConfig.model_validate_json(sys.argv[1]), output=Path(sys.argv[2]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    slow = config.model_dump_json()
    process = subprocess.Popen([sys.executable, "-c", code, slow, str(tmp_path / "parts")], env=environment)
    folder = tmp_path / "parts" / "checkpoints"
    deadline = time.monotonic() + 120
    while not (folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "parts" / "bundle").exists()
    _same(train(config, output=tmp_path / "whole"), train(config, output=tmp_path / "parts", resume=True))


def test_damaged_checkpoints_are_passed_over(local_ray: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = TrainingConfig(**SAC)
    whole = train(config, output=tmp_path / "run")
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    kept = sorted(path for path in store.folder.iterdir() if path.name.isdigit())
    assert len(kept) == 2
    assert whole.checkpoint == kept[-1]
    victim = max(
        (path for path in (kept[-1] / "algorithm").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    # A folder that was never finished is none.
    (store.folder / "000000999999.partial").mkdir()
    newest = store.newest()
    assert newest is not None
    assert newest.folder == kept[0]
    assert "does not match its sha256" in caplog.text
    _same(whole, train(config, output=tmp_path / "run", resume=True))


def test_replay_is_written_once(local_ray: None, tmp_path: Path) -> None:
    algo = build_algorithm(TrainingConfig(**SAC), "sac")
    store = CheckpointStore(tmp_path / "checkpoints")
    contents: list[dict[str, bytes]] = []
    for _ in range(5):
        algo.train()
        store.save(algo, [], 0.0)
        contents.append({path.name: path.read_bytes() for path in (store.folder / "replay").iterdir()})
    width = algo.replay.rows_since(0).shape[1]
    for earlier, later in pairwise(contents):
        fresh = [name for name in later if name not in earlier]
        assert len(fresh) == 1
        first, last = (int(part) for part in fresh[0].removesuffix(".npy").split("-"))
        # Only what came since, and nothing of it twice.
        assert len(later[fresh[0]]) < (last - first) * width * 4 + 200
        assert all(later[name] == content for name, content in earlier.items() if name in later)
    # A buffer of 3,000 needs no file of rows that it has overwritten (but what the checkpoint before still names).
    assert len(contents[-1]) <= 5
    newest = store.newest()
    assert newest is not None
    other = build_algorithm(TrainingConfig(**SAC), "sac")
    store.restore(other, newest)
    np.testing.assert_array_equal(other.replay.rows_since(0), algo.replay.rows_since(0))
    assert other.replay.total == algo.replay.total
    algo.stop()
    other.stop()


def test_a_full_disk_leaves_the_last_checkpoint(local_ray: None, tmp_path: Path) -> None:
    algo = build_algorithm(TrainingConfig(**SAC), "sac")
    store = CheckpointStore(tmp_path / "checkpoints")
    algo.train()
    good = store.save(algo, [], 0.0)
    algo.train()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
    try:
        with pytest.raises(TrainingError, match=f"could not be written: File too large; the last good one is {good}"):
            store.save(algo, [], 0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    newest = store.newest()
    assert newest is not None
    assert newest.folder == good
    assert sorted(path.name for path in store.folder.iterdir()) == [good.name, "replay"]
    # With room again the next one succeeds.
    store.save(algo, [], 0.0)
    algo.stop()


def test_nan_names_the_last_good_checkpoint(local_ray: None, tmp_path: Path) -> None:
    config = TrainingConfig(**SAC | {"scenario": "training_toys:LaterBrokenToy"})
    with pytest.raises(TrainingError, match=r"_loss became nan .* the last good checkpoint is .*/checkpoints/0+\d+"):
        train(config, output=tmp_path / "run")
    newest = CheckpointStore(tmp_path / "run" / "checkpoints").newest()
    assert newest is not None
    assert all(np.isfinite(list(row.values())).all() for row in newest.curve)


def test_a_learner_that_is_killed_costs_one_interval(
    local_ray: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TrainingConfig(**PPO | {"num_learners": 1})
    killed: list[int] = []

    def kill(done: int, of: int, row: dict[str, float]) -> None:
        from ray._private.state import actors

        if done > 3_000 and not killed:
            alive = [actor for actor in actors().values() if actor["State"] == "ALIVE"]
            killed.extend(actor["Pid"] for actor in alive if "Executable" in actor["ActorClassName"])
            os.kill(killed[0], signal.SIGKILL)

    run = train(config, output=tmp_path / "run", progress=kill)
    assert len(killed) == 1
    assert "a learner's process has died; going on from" in caplog.text
    assert run.metrics["steps"] >= 9_000
    steps = [row["step"] for row in run.curve]
    assert steps == sorted(set(steps))


def test_a_folder_is_not_mistaken_for_another_runs(local_ray: None, tmp_path: Path) -> None:
    config = TrainingConfig(**PPO | {"steps": 1_000})
    train(config, output=tmp_path / "run")
    with pytest.raises(ConfigurationError, match="holds the checkpoints of a run that reached 1024 steps"):
        train(config, output=tmp_path / "run")
    with pytest.raises(ConfigurationError, match=r"was begun with seed 4, not 5") as caught:
        train(config.model_copy(update={"seed": 5}), output=tmp_path / "run", resume=True)
    assert caught.value.field == "seed"


def test_what_this_machine_does_not_have_is_refused(tmp_path: Path) -> None:
    config = TrainingConfig(**BASE | {"num_envs": 1_000, "num_env_runners": 1_000})
    code = (
        "import sys; from pathlib import Path; from rlaas.training import TrainingConfig, train\n"
        "train(TrainingConfig.model_validate_json(sys.argv[1]), output=Path(sys.argv[2]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", code, config.model_dump_json(), str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "num_env_runners 1000 and num_learners 0 need 1000 CPUs, and this machine has" in done.stderr


def test_waiting_for_resources_is_said_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    needed = needed_resources(TrainingConfig(**BASE | {"num_env_runners": 2, "num_learners": 1}))
    assert needed == {"CPU": 3.0, "GPU": 0.0}
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += 10.0

    wait_for_resources(needed, lambda: {"CPU": 1.0 if now < 70 else 4.0}, clock=lambda: now, sleep=sleep)
    assert [record.getMessage() for record in caplog.records] == [
        "waiting for 3 CPU (1 free) in the Ray cluster since 30 s",
        "waiting for 3 CPU (1 free) in the Ray cluster since 60 s",
    ]
    with pytest.raises(ConfigurationError, match="has not had 3 CPU"):
        wait_for_resources(needed, lambda: {"CPU": 2.0}, clock=lambda: now, sleep=sleep)
