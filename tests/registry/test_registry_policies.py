"""Registering, finding, promoting and deleting policies on a real MLflow store."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.registry_bundles import MakeBundle

from rlaas.bundles import MANIFEST, MODEL, load_bundle
from rlaas.errors import BundleError, ConflictError, InvalidInputError, NotFoundError, OperatorError, RlaasError
from rlaas.files import sha256_of
from rlaas.registry import PolicyVersion, Registry
from rlaas.settings import Settings, load_settings


def test_what_is_registered_comes_back(registry: Registry, make_bundle: MakeBundle) -> None:
    before = time.time_ns() // 1000
    bundle = make_bundle(seed=3, lineage={"git_commit": "f" * 40, "reference_hash": "abc", "seed": 3})
    (bundle / "notes.txt").write_text("lies in the folder but is no part of the bundle")
    front = {"scenario": "toy", "candidates": [{"name": "x", "mean": [0.5]}]}

    made = registry.register(
        "toy",
        bundle,
        params={"hidden": [64, 64], "algorithm": "ppo"},
        metrics={"gain": 0.5, "hypervolume": 0.25},
        tags={"lake": {"silver.transitions": 7}, "git_commit": None},
        documents={"front.json": front},
        curve=[{"step": 10, "return": 0.1}, {"step": 20, "return": 0.2}],
    )

    assert made == registry.get("toy", 1) == registry.get("toy", "1") == registry.get("toy", "candidate")
    assert (made.name, made.version, made.aliases) == ("toy", 1, ("candidate",))
    assert before - 1000 <= made.created_us <= time.time_ns() // 1000
    assert made.metrics == {"gain": 0.5, "hypervolume": 0.25}
    assert made.params == {"hidden": "[64, 64]", "algorithm": "ppo"}
    assert made.digest == sha256_of(bundle / MANIFEST)
    assert made.tags == {
        "lake": '{"silver.transitions": 7}',
        "lineage.git_commit": "f" * 40,
        "lineage.reference_hash": "abc",
        "lineage.seed": "3",
        "mlflow.source.git.commit": "f" * 40,
    }
    assert registry.names() == ["toy"]
    assert registry.front("toy", 1) == front
    assert registry.document("toy", 1, "arms.json") is None

    stored = registry.path("toy", "candidate")
    assert stored != bundle
    assert {f.name for f in stored.iterdir()} == {MODEL, "policy.safetensors", MANIFEST}
    assert load_bundle(stored).manifest == load_bundle(bundle).manifest


def test_mlflow_shows_the_run_with_its_curve(registry: Registry, settings: Settings, make_bundle: MakeBundle) -> None:
    made = registry.register(
        "toy",
        make_bundle(),
        params={"lr": 0.001},
        metrics={"gain": 0.5},
        curve=[{"step": 10 * i, "return": float(i)} for i in range(3)],
    )
    import mlflow

    client = mlflow.MlflowClient(settings.tracking_uri)
    run = client.get_run(made.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.001"}
    assert run.data.metrics["gain"] == 0.5
    history = client.get_metric_history(made.run_id, "curve/return")
    assert [(m.step, m.value) for m in history] == [(0, 0.0), (10, 1.0), (20, 2.0)]


def test_versions_are_newest_first_and_aliases_move(registry: Registry, make_bundle: MakeBundle) -> None:
    for i in range(3):
        registry.register("toy", make_bundle(f"b{i}", seed=i), metrics={"i": i})
    promoted = registry.set_alias("toy", "champion", 2)
    assert promoted.aliases == ("champion",)
    versions = registry.versions("toy")
    assert [(v.version, v.aliases, v.metrics["i"]) for v in versions] == [
        (3, ("candidate",), 2.0),
        (2, ("champion",), 1.0),
        (1, (), 0.0),
    ]
    registry.set_alias("toy", "champion", "candidate")
    assert registry.get("toy", "champion").version == 3
    assert registry.get("toy", 2).aliases == ()
    assert registry.register("toy", make_bundle("b3"), alias=None).aliases == ()
    assert registry.get("toy", "candidate").version == 3


def test_the_champion_is_not_deleted_and_numbers_are_not_used_again(
    registry: Registry, make_bundle: MakeBundle
) -> None:
    registry.register("toy", make_bundle("b1"))
    registry.register("toy", make_bundle("b2"), alias="champion")
    with pytest.raises(ConflictError, match="version 2 is the champion"):
        registry.delete("toy", 2)
    registry.delete("toy", 1)
    with pytest.raises(NotFoundError, match=r"no version '1'; versions: 2; aliases: champion"):
        registry.get("toy", 1)
    registry.set_alias("toy", "champion", registry.register("toy", make_bundle("b3")).version)
    registry.delete("toy", 2)
    assert [v.version for v in registry.versions("toy")] == [3]
    assert registry.register("toy", make_bundle("b4")).version == 4


def test_deleting_the_newest_version_does_not_free_its_number(registry: Registry, make_bundle: MakeBundle) -> None:
    registry.register("toy", make_bundle("b1"))
    registry.delete("toy", 1)
    assert registry.names() == []
    with pytest.raises(NotFoundError, match=r"no policy 'toy' is registered; policies: \(none\)"):
        registry.versions("toy")
    assert registry.register("toy", make_bundle("b2")).version == 2


def test_an_unknown_version_names_the_existing_ones(registry: Registry, make_bundle: MakeBundle) -> None:
    registry.register("toy", make_bundle())
    refs: tuple[object, ...] = (0, -1, 2, True, "2", "²", "champion", "../1", "")
    for ref in refs:
        with pytest.raises(NotFoundError, match="versions: 1; aliases: candidate") as caught:
            registry.path("toy", ref)  # type: ignore[arg-type]
        assert caught.value.field == "version"


def test_an_unknown_policy_names_the_existing_ones(registry: Registry, make_bundle: MakeBundle) -> None:
    registry.register("toy", make_bundle())
    with pytest.raises(NotFoundError, match="no policy 'other' is registered; policies: toy"):
        registry.get("other", "champion")


@pytest.mark.parametrize("name", ["../etc", "a/b", "a:b", "", ".hidden", "x" * 129, "a'b", "a b", "a..b"])
def test_names_that_could_be_paths_are_refused_everywhere(
    registry: Registry, make_bundle: MakeBundle, name: str
) -> None:
    bundle = make_bundle()
    for call in (
        lambda: registry.register(name, bundle),
        lambda: registry.get(name, 1),
        lambda: registry.versions(name),
        lambda: registry.path(name, 1),
        lambda: registry.set_alias(name, "champion", 1),
        lambda: registry.delete(name, 1),
        lambda: registry.front(name, 1),
    ):
        with pytest.raises(InvalidInputError, match="is not a plain name") as caught:
            call()
        assert caught.value.field == "policy"


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"alias": "v1"}, "alias"),
        ({"alias": "latest"}, "alias"),
        ({"alias": "1"}, "alias"),
        ({"alias": "../champion"}, "alias"),
        ({"metrics": {"gain": float("nan")}}, "metrics.gain"),
        ({"metrics": {"gain": "high"}}, "metrics.gain"),
        ({"metrics": {"../gain": 1.0}}, "metrics"),
        ({"params": {"": 1}}, "params"),
        ({"params": {"text": "x" * 6001}}, "params.text"),
        ({"tags": {"rlaas.tenant": "other"}}, "tags.rlaas.tenant"),
        ({"tags": {"lineage.seed": 1}}, "tags.lineage.seed"),
        ({"documents": {"../front.json": {}}}, "documents"),
        ({"documents": {"front.txt": {}}}, "documents.front.txt"),
        ({"documents": {"front.json": {"x": float("inf")}}}, "documents.front.json"),
        ({"documents": {"front.json": [1]}}, "documents.front.json"),
        ({"curve": [{"step": 1, "loss": 1.0}, {"step": 2, "loss": float("inf")}]}, "curve[1].loss"),
    ],
)
def test_bad_input_is_named_and_nothing_is_stored(
    unopened: Registry, settings: Settings, make_bundle: MakeBundle, options: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        unopened.register("toy", make_bundle(), **options)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert "\n" not in str(caught.value)
    assert not settings.home.exists()


@pytest.mark.parametrize("damage", ["missing", "changed", "manifest"])
def test_a_damaged_bundle_is_refused_and_nothing_is_stored(
    unopened: Registry, settings: Settings, make_bundle: MakeBundle, damage: str
) -> None:
    bundle = make_bundle()
    if damage == "missing":
        (bundle / MODEL).unlink()
    elif damage == "changed":
        (bundle / MODEL).write_bytes((bundle / MODEL).read_bytes() + b"\0")
    else:
        (bundle / MANIFEST).write_text("{")
    with pytest.raises(BundleError):
        unopened.register("toy", bundle)
    assert not settings.home.exists()


@pytest.mark.parametrize("step", ["log_text", "create_model_version", "set_registered_model_alias", "set_terminated"])
def test_a_registration_that_fails_half_way_leaves_nothing(
    registry: Registry, settings: Settings, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    registry.register("toy", make_bundle("b1"))
    import mlflow

    def refuse(*_: object, **__: object) -> None:
        raise mlflow.exceptions.MlflowException("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, step, refuse)
        with pytest.raises(OperatorError, match="disk full") as caught:
            registry.register("toy", make_bundle("b2"), documents={"front.json": {}})
        assert not hasattr(caught.value, "__notes__")

    assert [v.version for v in registry.versions("toy")] == [1]
    client = mlflow.MlflowClient(settings.tracking_uri)
    experiment = client.get_experiment_by_name("rlaas-default").experiment_id
    assert [run.info.run_id for run in client.search_runs([experiment])] == [registry.get("toy", 1).run_id]
    assert len(list((settings.home / "artifacts").rglob(MANIFEST))) == 1
    assert len(list((settings.home / "artifacts").rglob("front.json"))) == 0
    assert registry.get("toy", "candidate").version == 1
    assert registry.register("toy", make_bundle("b3")).aliases == ("candidate",)


def test_the_bundle_of_a_training_run_goes_into_that_run_once(
    registry: Registry, settings: Settings, make_bundle: MakeBundle
) -> None:
    import mlflow

    client = mlflow.MlflowClient(settings.tracking_uri)
    experiment = client.create_experiment("training", (settings.home / "elsewhere").as_uri())
    run = client.create_run(experiment).info.run_id
    client.log_param(run, "lr", "1e-3")

    made = registry.register("toy", make_bundle("b1"), run_id=run, params={"lr": 0.001, "hidden": 64})
    assert made.run_id == run
    assert made.params == {"lr": "0.001", "hidden": "64"}
    assert client.get_run(run).data.params == {"lr": "1e-3", "hidden": "64"}
    load_bundle(registry.path("toy", 1))

    with pytest.raises(ConflictError, match="already holds a bundle"):
        registry.register("toy", make_bundle("b2", seed=9), run_id=run)
    assert [v.version for v in registry.versions("toy")] == [1]
    with pytest.raises(NotFoundError, match="no MLflow run 'nowhere'"):
        registry.register("toy", make_bundle("b3"), run_id="nowhere")

    registry.delete("toy", 1)
    assert client.get_run(run).info.lifecycle_stage == "active"


def test_a_bundle_that_changed_in_the_store_is_noticed(registry: Registry, make_bundle: MakeBundle) -> None:
    registry.register("toy", make_bundle())
    manifest = registry.path("toy", 1) / MANIFEST
    manifest.write_text(manifest.read_text().replace('"toy"', '"boy"'))
    with pytest.raises(BundleError, match=r"bundle\.json is not the registered one"):
        registry.path("toy", 1)
    manifest.unlink()
    with pytest.raises(BundleError, match="no bundle at"):
        registry.path("toy", 1)


def test_tenants_do_not_see_each_other(settings: Settings, make_bundle: MakeBundle) -> None:
    ours, theirs = Registry(settings), Registry(settings.model_copy(update={"tenant": "acme"}))
    ours.register("toy", make_bundle("b1"))
    theirs.register("toy", make_bundle("b2", seed=5))
    theirs.register("toy.more", make_bundle("b3"))
    assert ours.names() == ["toy"]
    assert theirs.names() == ["toy", "toy.more"]
    assert ours.get("toy", 1).digest != theirs.get("toy", 1).digest
    # In MLflow the other tenant's policy is called acme.toy: by that name it must not be within reach either.
    with pytest.raises(NotFoundError, match=r"no policy 'acme\.toy' is registered; policies: toy"):
        ours.get("acme.toy", 1)
    with pytest.raises(ConflictError, match="taken by something else"):
        ours.register("acme.toy", make_bundle("b4"))
    assert [v.version for v in theirs.versions("toy")] == [1]


def test_two_processes_may_register_on_a_new_store_at_once(settings: Settings, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    script = (
        "import sys; from pathlib import Path; from rlaas.registry import Registry\n"
        "from rlaas.settings import load_settings\n"
        "registry = Registry(load_settings(home=Path(sys.argv[1])))\n"
        "for i in range(3): registry.register('toy', Path(sys.argv[2]), metrics={'i': i}, alias=sys.argv[3])\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(settings.home), str(bundle), alias],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for alias in ("candidate", "challenger")
    ]
    for worker in workers:
        out, err = worker.communicate(timeout=200)
        assert (worker.returncode, out, err) == (0, "", ""), err
    registry = Registry(settings)
    versions = registry.versions("toy")
    assert [v.version for v in versions] == [6, 5, 4, 3, 2, 1]
    assert sorted(v.metrics["i"] for v in versions) == [0, 0, 1, 1, 2, 2]
    assert {a for v in versions for a in v.aliases} == {"candidate", "challenger"}
    for version in versions:
        load_bundle(registry.path("toy", version.version))


def test_a_locked_database_is_waited_for(
    registry: Registry, settings: Settings, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register("toy", make_bundle("b1"))
    import mlflow
    from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

    original, seen = mlflow.MlflowClient.create_model_version, []

    def unavailable(*args: object, **kwargs: object) -> object:
        seen.append(1)
        if len(seen) <= 2:
            raise mlflow.exceptions.MlflowException("database is locked", error_code=TEMPORARILY_UNAVAILABLE)
        return original(*args, **kwargs)

    monkeypatch.setattr(mlflow.MlflowClient, "create_model_version", unavailable)
    assert registry.register("toy", make_bundle("b2")).version == 2
    assert len(seen) == 3


def test_a_file_that_is_no_database_is_an_operator_error(settings: Settings, make_bundle: MakeBundle) -> None:
    settings.home.mkdir(parents=True)
    (settings.home / "mlflow.db").write_text("this is not a database, and long enough to look like a header")
    with pytest.raises(RlaasError) as caught:
        Registry(settings).register("toy", make_bundle())
    assert "\n" not in str(caught.value)


def test_a_registry_crosses_process_boundaries(registry: Registry, make_bundle: MakeBundle) -> None:
    made = registry.register("toy", make_bundle())
    copy: Registry = pickle.loads(pickle.dumps(registry))
    assert copy.get("toy", 1) == made == pickle.loads(pickle.dumps(made))
    assert isinstance(made, PolicyVersion)


def test_the_store_needs_no_network_and_no_variable(settings: Settings) -> None:
    registry = Registry(settings)
    assert registry.names() == []
    with sqlite3.connect(settings.home / "mlflow.db") as database:
        assert database.execute("select count(*) from registered_models").fetchone() == (0,)


def test_importing_the_registry_does_not_import_mlflow() -> None:
    script = "import sys, rlaas.registry; print(sorted(m for m in sys.modules if m.split('.')[0] in ('mlflow', 'ray')))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_settings_of_another_home_have_another_registry(tmp_path: Path, make_bundle: MakeBundle) -> None:
    one, two = (Registry(load_settings(home=tmp_path / name)) for name in ("one", "two"))
    one.register("toy", make_bundle())
    assert (one.names(), two.names()) == (["toy"], [])
