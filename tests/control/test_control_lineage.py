from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bundles import policy_bundle
from support.experiment_kit import document
from support.front_kit import network_front
from support.lake_records import START_US, decision, outcome

from rlaas.control.experiments.documents import parse_document
from rlaas.control.experiments.store import Event, ExperimentStore, StoredExperiment
from rlaas.control.lineage import Emitter, models_of_tables, trace
from rlaas.control.lineage.joins import TellingJoinLoop
from rlaas.control.lineage.openlineage import Job, Read, Run, Written
from rlaas.control.state import StateDatabase
from rlaas.errors import ConfigurationError, InvalidInputError, NotFoundError, PipelineError
from rlaas.lake import Committer, Lake, WriteAheadLog, encode, update_transitions
from rlaas.lake.datasets import create_dataset
from rlaas.lake.lineage import Graph, Node, parse_name
from rlaas.lake.privacy import Eraser, protected_lake
from rlaas.pipeline.continuous.artefacts import Artefact
from rlaas.pipeline.continuous.report import StageReport
from rlaas.pipeline.continuous.tracking import Tracker
from rlaas.registry import Registry
from rlaas.settings import Settings

# What the specification asks of a run event (OpenLineage.json 2-0-2) and of the facets that are sent, as read there.
_FACET = {
    "type": "object",
    "required": ["_producer", "_schemaURL"],
    "properties": {"_producer": {"type": "string", "format": "uri"}, "_schemaURL": {"type": "string", "format": "uri"}},
}
_JOB = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {"namespace": {"type": "string"}, "name": {"type": "string"}},
}


def _facets(**fields: dict[str, Any]) -> dict[str, Any]:
    named = {name: {"allOf": [_FACET, {"type": "object", **wanted}]} for name, wanted in fields.items()}
    return {"type": "object", "properties": named, "additionalProperties": _FACET}


_DATASET = {
    **_JOB,
    "properties": {
        **_JOB["properties"],  # type: ignore[dict-item]
        "facets": _facets(
            version={"required": ["datasetVersion"], "properties": {"datasetVersion": {"type": "string"}}}
        ),
        "outputFacets": _facets(
            outputStatistics={"required": ["rowCount"], "properties": {"rowCount": {"type": "integer"}}}
        ),
    },
}
_RUN_ID = {"type": "string", "format": "uuid"}
_RUN = {"type": "object", "required": ["runId"], "properties": {"runId": _RUN_ID}}
RUN_EVENT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": {"type": "string", "format": "uri"},
        "schemaURL": {"const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"},
        "run": {
            **_RUN,
            "properties": {
                "runId": _RUN_ID,
                "facets": _facets(
                    parent={"required": ["run", "job"], "properties": {"run": _RUN, "job": _JOB}},
                    errorMessage={
                        "required": ["message", "programmingLanguage"],
                        "properties": {"message": {"type": "string"}, "programmingLanguage": {"type": "string"}},
                    },
                ),
            },
        },
        "job": {
            **_JOB,
            "properties": {
                **_JOB["properties"],  # type: ignore[dict-item]
                "facets": _facets(jobType={"required": ["processingType", "integration"]}),
            },
        },
        "inputs": {"type": "array", "items": _DATASET},
        "outputs": {"type": "array", "items": _DATASET},
    },
}


def check_event(event: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(RUN_EVENT, format_checker=jsonschema.FormatChecker()).validate(event)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", event["run"]["runId"])
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None


def write(settings: Settings, records: list[Any], results: list[Any]) -> None:
    for stream, some in (("decisions", records), ("outcomes", results)):
        with WriteAheadLog(settings.wal_root, stream, "g") as wal:  # type: ignore[arg-type]
            wal.append([encode(one) for one in some])
    lake = Lake(settings.lake_root, settings.tenant)
    Committer(lake, settings.wal_root).run_once()
    update_transitions(lake)


def served(version: int, names: list[str], **more: Any) -> tuple[list[Any], list[Any]]:
    records = [
        decision(
            name, policy="toy", scenario="toy", version=version, unit=f"user-{name}", time_us=START_US + at, **more
        )
        for at, name in enumerate(names)
    ]
    return records, [outcome(f"r-{name}", name) for name in names]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """toy@1 decided, toy@2 was fitted to that and decided in an experiment, toy@3 was made by a pipeline from both."""
    root = tmp_path_factory.mktemp("site")
    settings = Settings(home=root / "home")
    registry, lake = Registry(settings), Lake(settings.lake_root, settings.tenant)
    front = network_front(6, scenario="toy").to_dict()
    registry.register("toy", policy_bundle(root / "v1", seed=1), tags={"lake_versions": {}}, alias="champion")
    write(settings, *served(1, ["a1", "a2", "a3"]))
    first = lake.version("silver.transitions")
    assert first is not None
    fitted = policy_bundle(root / "v2", seed=2)
    manifest = json.loads((fitted / "bundle.json").read_text())
    manifest["lineage"] = {"table": "silver.transitions", "table_version": first}
    (fitted / "bundle.json").write_text(json.dumps(manifest))
    registry.register("toy", fitted, tags={"lake_versions": {"silver.transitions": first}}, alias="candidate")
    create_dataset(lake, "spring", "silver.transitions")
    write(settings, *served(2, ["b1", "b2"], experiment="exp"))
    pinned = {name: version for name, version in lake.versions().items() if not name.startswith("quarantine")}
    registry.register(
        "toy",
        policy_bundle(root / "v3", seed=3),
        tags={
            "lake_versions": pinned,
            "stage_keys": {"data": "k"},
            "parent_version": 2,
            "pipeline_run": "f" * 32,
            "datasets": ["spring"],
        },
        documents={"front.json": front},
        alias="candidate",
    )
    stored = StoredExperiment(parse_document(document()), "running", 1, START_US)
    store = ExperimentStore(StateDatabase(settings.state_database), settings.tenant)
    store.insert(stored, Event(START_US, "me", "created", ""))
    write(settings, *served(3, ["c1"]))
    return settings


def came_from(settings: Settings, name: str) -> set[str]:
    return {step.node.id for step in trace(settings, name).came_from[1:]}


def went_into(settings: Settings, name: str) -> set[str]:
    return {step.node.id for step in trace(settings, name).went_into[1:]}


def test_which_data_trained_the_policy_that_made_a_decision(site: Settings) -> None:
    found = came_from(site, "c1")
    assert {"policy:toy@3", "dataset:spring", f"run:{'f' * 32}"} <= found
    # Through the data of toy@3 to the policies, and the experiment, that brought it.
    assert {"decisions:toy@1", "decisions:toy@2", "policy:toy@1", "policy:toy@2"} <= found
    assert any(name.startswith("table:silver.transitions@") for name in found)
    assert any(name.startswith("table:bronze.outcomes@") for name in found)
    assert "decisions:toy@3" not in found
    assert {"policy:toy@2", "experiment:exp"} <= came_from(site, "decision:b1")


def test_which_decisions_came_from_data(site: Settings) -> None:
    first = models_of_tables(site)["toy@2"]["silver.transitions"]
    found = went_into(site, f"silver.transitions@{first}")
    assert {"policy:toy@2", "decision:b1", "decision:b2", "decision:c1", "experiment:exp"} <= found
    assert not {"policy:toy@1", "decision:a1"} & found
    # A decision is itself data for what came later.
    assert {"policy:toy@2", "policy:toy@3", "decision:c1"} <= went_into(site, "decision:a1")
    assert "policy:toy@2" not in went_into(site, "decision:b2")


def test_everything_is_a_node(site: Settings) -> None:
    kinds = {node.kind for node in trace(site, "c1").graph.nodes()}
    assert kinds == {"dataset", "decision", "decisions", "experiment", "front", "policy", "run", "table"}
    assert {"policy:toy@3"} <= went_into(site, "front:toy")
    assert {"policy:toy@1", "policy:toy@2"} <= came_from(site, "experiment:exp")
    assert trace(site, "policy:toy").start == "policy:toy@1"  # the champion
    assert trace(site, "policy:toy@candidate").start == "policy:toy@3"
    relations = {edge.relation for edge in trace(site, "policy:toy@2").graph.edges()}
    assert {"trained on", "joined into", "grew into", "recorded in", "decided", "held against"} <= relations


def test_a_depth_and_a_sample_keep_a_walk_short(site: Settings) -> None:
    assert {step.depth for step in trace(site, "c1", depth=1).came_from} == {0, 1}
    assert not any(
        name.startswith("decision:")
        for name in {step.node.id for step in trace(site, "policy:toy@2", sampled=0).went_into}
    )


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("", InvalidInputError, "name something"),
        ("planet:mars", InvalidInputError, "unknown kind 'planet'"),
        ("decision:nobody", NotFoundError, "no decision 'nobody'"),
        ("policy:toy@9", NotFoundError, "versions: 1, 2, 3"),
        ("front:chess", NotFoundError, "no front:chess"),
        ("experiment:none", NotFoundError, "known: experiment:exp"),
        ("silver.transitions@x", InvalidInputError, "is no number"),
        ("silver.transitions@999", NotFoundError, "version"),
        ("silver.nothing@1", ConfigurationError, "unknown table"),
    ],
)
def test_what_there_is_not_is_said_so(site: Settings, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        trace(site, name)


def test_an_erasure_names_the_models_made_from_the_subject(site: Settings) -> None:
    found = Eraser(site, protected_lake(site), trained=models_of_tables(site)).look("user-a1")
    assert found["models"] == ["toy@2", "toy@3"]
    assert Eraser(site, protected_lake(site), trained=models_of_tables(site)).look("user-b1")["models"] == ["toy@3"]


NODES = st.sampled_from([Node("table", f"t@{number}") for number in range(8)])


@given(st.lists(st.tuples(NODES, NODES), max_size=20))
def test_walks_agree_with_reachability(edges: list[tuple[Node, Node]]) -> None:
    graph = Graph()
    for source, target in edges:
        graph.link(source, target, "into")
    reach = {(source.id, target.id) for source, target in edges}
    for _ in range(8):  # the closure, by squaring until nothing is new
        reach |= {(a, d) for a, b in reach for c, d in reach if b == c}
    for node in graph.nodes():
        forward = {step.node.id for step in graph.walk(node.id, "to") if step.depth}
        assert forward == {target for source, target in reach if source == node.id}
        backward = {step.node.id for step in graph.walk(node.id, "from") if step.depth}
        assert backward == {source for source, target in reach if target == node.id}


def test_names_are_read_as_people_write_them() -> None:
    assert parse_name("policy:a@3") == ("policy", "a", "3")
    assert parse_name("bronze.decisions@4") == ("table", "bronze.decisions", "4")
    assert parse_name("0199-x-y") == ("decision", "0199-x-y", None)
    assert parse_name("front:net") == ("front", "net", None)


def events_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_events_are_those_of_the_specification(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "events.jsonl"
    emitter = Emitter(Settings(home=tmp_path, openlineage_url=f"file://{file}"))
    job, parent = Job("pipeline.toy.train", "STAGE"), ("a" * 32, Job("pipeline.toy", "PIPELINE"))
    with emitter.run(job, run_id="b" * 32, parent=parent) as run:
        run.inputs.append(Read("silver.transitions", "7"))
        run.outputs.append(Written("policy/toy", "3", 12))
    with pytest.raises(PipelineError), emitter.run(job, run_id="not a uuid"):
        raise PipelineError("it broke")
    events = events_of(file)
    for event in events:
        check_event(event)
    assert [event["eventType"] for event in events] == ["START", "COMPLETE", "START", "FAIL"]
    done, failed = events[1], events[3]
    assert done["run"]["facets"]["parent"]["run"]["runId"].replace("-", "") == "a" * 32
    assert done["inputs"][0]["facets"]["version"]["datasetVersion"] == "7"
    assert done["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 12
    assert done["inputs"][0]["namespace"] == f"file://{tmp_path / 'lake'}"
    assert failed["run"]["facets"]["errorMessage"]["message"] == "it broke"
    assert events[2]["run"]["runId"] == failed["run"]["runId"]


class _Receiver(BaseHTTPRequestHandler):
    got: list[dict[str, Any]]
    status = 201

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[_Receiver]]]:
    handler = type("Handler", (_Receiver,), {"got": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/api/v1/lineage", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_join_tells_an_endpoint_of_what_it_made(tmp_path: Path, receiver: Any) -> None:
    url, handler = receiver
    settings = Settings(home=tmp_path, openlineage_url=url)
    records, results = served(1, ["a1", "a2"])
    for stream, some in (("decisions", records), ("outcomes", results)):
        with WriteAheadLog(settings.wal_root, stream, "g") as wal:  # type: ignore[arg-type]
            wal.append([encode(one) for one in some])
    lake = protected_lake(settings)
    Committer(lake, settings.wal_root).run_once()
    loop = TellingJoinLoop(lake, Emitter(settings))
    assert loop.flush() == 2
    assert loop.flush() == 2  # nothing new, and nothing to tell
    start, done = handler.got
    for event in handler.got:
        check_event(event)
    assert (start["eventType"], done["eventType"]) == ("START", "COMPLETE")
    assert {one["name"] for one in done["inputs"]} == {"bronze.decisions", "bronze.outcomes"}
    assert done["outputs"][0]["name"] == "silver.transitions"
    assert done["outputs"][0]["facets"]["version"]["datasetVersion"] == str(lake.version("silver.transitions"))


def test_an_endpoint_that_fails_stops_no_work(tmp_path: Path, receiver: Any) -> None:
    url, handler = receiver
    handler.status = 500
    emitter = Emitter(Settings(home=tmp_path, openlineage_url=url))
    run = Run(Job("j", "STAGE"), "a" * 32)
    for _ in range(5):
        emitter.emit("START", run)
    assert len(handler.got) == 1  # asked once, and then left alone for a while
    nobody = Emitter(Settings(home=tmp_path, openlineage_url="http://127.0.0.1:9/"))
    nobody.emit("START", run)
    unwritable = Emitter(Settings(home=tmp_path, openlineage_url="/proc/nothing/events"))
    unwritable.emit("START", run)
    with nobody.run(Job("j", "STAGE")):
        pass


def test_a_pipeline_and_its_stages_tell_what_they_read_and_made(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", openlineage_url=str(tmp_path / "events.jsonl"))
    tracker = Tracker(settings, "toy", tmp_path / "pipeline")
    (tmp_path / "made").mkdir()
    made = Artefact(
        stage="register",
        key="k",
        folder=tmp_path / "made",
        inputs={},
        digest="d" * 8,
        metrics={},
        seconds=0.1,
        finished_us=0,
    )
    inputs = {"lake": {"silver.transitions": 4}, "stages": {"evaluate": "e" * 8}}
    with tracker.pipeline({}) as run_id:
        stage = tracker.open_stage("register")
        report = StageReport(name="register", status="run", attempts=1)
        tracker.close_stage(stage, report, inputs=inputs, lineage={"policy": "toy/3"}, artefact=made)

    def fail() -> None:
        with tracker.pipeline({}):
            stage = tracker.open_stage("train")
            broken = StageReport(name="train", status="failed", reason="a NaN loss")
            tracker.close_stage(stage, broken, inputs={}, lineage={}, artefact=None)
            raise PipelineError("stage train failed")

    with pytest.raises(PipelineError):
        fail()
    events = events_of(tmp_path / "events.jsonl")
    for event in events:
        check_event(event)
    told = [(event["eventType"], event["job"]["name"]) for event in events]
    whole, register, train = "pipeline.toy", "pipeline.toy.register", "pipeline.toy.train"
    assert told == [
        ("START", whole),
        ("START", register),
        ("COMPLETE", register),
        ("COMPLETE", whole),
        ("START", whole),
        ("START", train),
        ("FAIL", train),
        ("FAIL", whole),
    ]
    done = events[2]
    assert [one["name"] for one in done["inputs"]] == ["silver.transitions", "pipeline.toy/evaluate"]
    assert [one["name"] for one in done["outputs"]] == ["pipeline.toy/register", "policy/toy"]
    assert done["outputs"][1]["facets"]["version"]["datasetVersion"] == "3"
    assert done["run"]["facets"]["parent"]["run"]["runId"].replace("-", "") == run_id
    assert events[6]["run"]["facets"]["errorMessage"]["message"] == "a NaN loss"
