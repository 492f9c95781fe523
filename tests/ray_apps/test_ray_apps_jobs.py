"""Real jobs on a real cluster: submitted over the jobs endpoint, from a working directory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

RAY = str(Path(sys.executable).with_name("ray"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cluster:
    jobs: str
    address: str
    home: Path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head node of its own, ended by its process group."""
    folder = Path(tempfile.mkdtemp(prefix="rlaas-jobs-", dir="/tmp"))
    home = tmp_path_factory.mktemp("jobs") / "home"
    port, dashboard, client = _free_port(), _free_port(), _free_port()
    environment = {**os.environ, "RLAAS_HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    head = subprocess.Popen(
        [
            RAY,
            "start",
            "--head",
            "--block",
            f"--port={port}",
            f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={client}",
            f"--dashboard-agent-listen-port={_free_port()}",
            f"--dashboard-agent-grpc-port={_free_port()}",
            f"--metrics-export-port={_free_port()}",
            f"--runtime-env-agent-port={_free_port()}",
            "--num-cpus=4",
            f"--temp-dir={folder}",
            "--include-dashboard=true",
            "--node-ip-address=127.0.0.1",
        ],
        env=environment,
        stdout=(folder / "head.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        _wait_for_jobs(f"http://127.0.0.1:{dashboard}", head, folder / "head.log")
        yield Cluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}", home)
    finally:
        head.terminate()
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            head.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_jobs(url: str, head: subprocess.Popen[bytes], log: Path) -> None:
    from ray.job_submission import JobSubmissionClient

    deadline = time.monotonic() + 90
    while True:
        assert head.poll() is None, log.read_text()
        try:
            # The endpoint answers before the node's agent, which starts jobs, has registered.
            jobs = JobSubmissionClient(url)
            job = jobs.submit_job(entrypoint="true")
            while not jobs.get_job_status(job).is_terminal():
                time.sleep(0.2)
        except (ConnectionError, RuntimeError):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        else:
            return


def _submit(cluster: Cluster, repository: Path, module: str, config: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RLAAS_HOME": str(cluster.home)}
    environment.pop("RAY_ADDRESS", None)
    # What a user's project would hold: entry points and configurations, not the checkout's .venv.
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(
            repository / "ray_apps", Path(folder) / "ray_apps", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copy(config, Path(folder) / "job.yaml")
        return subprocess.run(
            [
                RAY,
                "job",
                "submit",
                f"--address={cluster.jobs}",
                f"--working-dir={folder}",
                f'--runtime-env-json={{"env_vars": {{"RLAAS_HOME": "{cluster.home}"}}}}',
                "--",
                sys.executable,
                "-m",
                module,
                "--config",
                "job.yaml",
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


def _shrunk(path: Path, target: Path, changes: dict[str, object]) -> Path:
    document = {**yaml.safe_load(path.read_text()), **changes}
    target.write_text(yaml.safe_dump(document))
    return target


@pytest.mark.ray
def test_a_training_job_registers_a_policy(cluster: Cluster, repository: Path, tmp_path: Path) -> None:
    config = _shrunk(repository / "configs/training/network5g-sac.yaml", tmp_path / "train.yaml", {"steps": 1500})
    done = _submit(cluster, repository, "ray_apps.train", config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert '"version": 1' in done.stdout

    from rlaas.registry import Registry
    from rlaas.settings import load_settings

    version = Registry(load_settings(home=cluster.home)).get("network5g", "candidate")
    assert version.version == 1


@pytest.mark.ray
def test_an_optimisation_job_writes_a_front(cluster: Cluster, repository: Path, tmp_path: Path) -> None:
    changes = {"generations": 2, "population": 8, "steps": 20, "warmup": 2, "seeds": [1]}
    config = _shrunk(repository / "configs/optimization/network5g.yaml", tmp_path / "optimize.yaml", changes)
    done = _submit(cluster, repository, "ray_apps.optimize", config)
    assert done.returncode == 0, done.stdout + done.stderr
    front = json.loads((cluster.home / "fronts" / "network5g-static.json").read_text())
    assert front["scenario"] == "network5g"
    assert front["candidates"]


@pytest.mark.ray
def test_a_tuning_job_writes_what_a_training_job_takes(cluster: Cluster, repository: Path, tmp_path: Path) -> None:
    source = yaml.safe_load((repository / "configs/tuning/network5g.yaml").read_text())
    training = {**source["training"], "steps": 1500, "evaluation_steps": 20, "evaluation_warmup": 2}
    changes = {"training": training, "trials": 1, "report_every": 1500, "confirmation": None, "scheduler": "none"}
    config = _shrunk(repository / "configs/tuning/network5g.yaml", tmp_path / "tune.yaml", changes)
    done = _submit(cluster, repository, "ray_apps.tune", config)
    assert done.returncode == 0, done.stdout + done.stderr
    best = cluster.home / "tuning" / "job" / "best.yaml"
    done = _submit(cluster, repository, "ray_apps.train", best)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.ray
def test_a_pipeline_job_registers_the_policy_with_its_front(cluster: Cluster, repository: Path, tmp_path: Path) -> None:
    source = yaml.safe_load((repository / "configs/pipeline/network5g.yaml").read_text())
    source["training"]["steps"] = 1500
    source["searches"] = [{**source["searches"][0], "generations": 1, "population": 8, "steps": 20, "warmup": 2}]
    config = _shrunk(repository / "configs/pipeline/network5g.yaml", tmp_path / "pipeline.yaml", source)
    done = _submit(cluster, repository, "ray_apps.pipeline", config)
    assert done.returncode == 0, done.stdout + done.stderr

    from rlaas.registry import Registry
    from rlaas.settings import load_settings

    registry = Registry(load_settings(home=cluster.home))
    version = registry.get("network5g", "candidate")
    front = registry.front("network5g", version.version)
    assert front is not None
    assert {c["kind"] for c in front["candidates"]} <= {"policy", "configuration"}
    assert {"hypervolume", "baseline_hypervolume", "latency"} <= version.metrics.keys()
    assert version.params["gamma"] == "0.95"
    assert version.tags["reference_hash"] == front["reference_hash"]


@pytest.mark.ray
def test_serve_run_brings_up_the_platform(cluster: Cluster, repository: Path, tmp_path: Path) -> None:
    port, log = _free_port(), tmp_path / "serve.log"
    environment = {**os.environ, "RLAAS_HOME": str(cluster.home), "RAY_ADDRESS": cluster.address}
    serve = str(Path(sys.executable).with_name("serve"))
    subprocess.run(
        [serve, "start", "--http-host=127.0.0.1", f"--http-port={port}"],
        env=environment,
        check=True,
        capture_output=True,
        timeout=120,
    )
    platform = subprocess.Popen(
        [serve, "run", "ray_apps.platform:build_app", "config=configs/serving/local.yaml"],
        env=environment,
        cwd=repository,
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            assert platform.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.3)
        # No policy is registered in this home, or one is: either way the platform says which.
        assert httpx.get(f"http://127.0.0.1:{port}/ready", timeout=5).status_code in (200, 503)
        problem = httpx.post(f"http://127.0.0.1:{port}/api/v1/policies/ghost/decide", json={"observation": [1.0]})
        assert problem.status_code in (404, 503)
        assert problem.headers["content-type"] == "application/problem+json"
    finally:
        platform.send_signal(signal.SIGINT)
        try:
            platform.wait(60)
        except subprocess.TimeoutExpired:
            platform.kill()


@pytest.mark.ray
def test_a_bad_config_fails_the_job_with_one_line(cluster: Cluster, repository: Path, tmp_path: Path) -> None:
    config = _shrunk(repository / "configs/training/network5g-sac.yaml", tmp_path / "bad.yaml", {"stepz": 1})
    done = _submit(cluster, repository, "ray_apps.train", config)
    assert done.returncode != 0
    assert "unknown key 'stepz'" in done.stdout
    assert "Traceback" not in done.stdout
