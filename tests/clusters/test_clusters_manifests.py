"""The manifests render, and every object is what its schema and the rules of the house allow."""

from __future__ import annotations

import copy
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from support.manifests import OVERLAYS, Document, kuberay_schema, of_kind, pod_templates, render, unknown_fields

from rlaas.serving.environment import FAST_LANE
from rlaas.settings import Settings

KUBERNETES = "1.31"
RAY_KINDS = ("RayService", "RayJob")


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def documents(overlay: str, repository: Path) -> list[Document]:
    return render(repository / "clusters" / "overlays" / overlay)


def test_an_overlay_holds_everything_in_one_namespace(overlay: str, documents: list[Document]) -> None:
    kinds = {document["kind"] for document in documents}
    assert kinds >= {"Namespace", "ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "RayService", "RayJob"}
    assert ("PodDisruptionBudget" in kinds) == (overlay != "local")
    for document in documents:
        expected = None if document["kind"] == "Namespace" else f"rlaas-{overlay}"
        assert document["metadata"].get("namespace") == expected


@pytest.mark.parametrize("kind", RAY_KINDS)
def test_ray_kinds_match_kuberays_schema(documents: list[Document], kind: str) -> None:
    schema = kuberay_schema(kind)
    validator = jsonschema.Draft202012Validator(schema)
    (document,) = of_kind(documents, kind)
    assert [f"{e.json_path}: {e.message}" for e in validator.iter_errors(document)] == []
    assert list(unknown_fields(document, schema)) == []
    assert len(document["metadata"]["name"]) <= 47


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("spec", "rayClusterConfig", "headGroupSpec", "rayStartParam"), {}, "rayStartParam"),
        (("spec", "rayClusterConfig", "headGroupSpec", "template", "spec", "hostIp"), "x", "hostIp"),
        (("spec", "rayClusterConfig", "workerGroupSpecs", 0, "maxReplica"), 3, "maxReplica"),
        (("spec", "serveConfig"), "", "serveConfig"),
    ],
)
def test_the_check_for_unknown_fields_finds_misspellings(
    documents: list[Document], path: tuple[str | int, ...], value: object, complaint: str
) -> None:
    document = copy.deepcopy(of_kind(documents, "RayService")[0])
    place = document
    for part in path[:-1]:
        place = place[part]  # type: ignore[index]
    place[path[-1]] = value  # type: ignore[index]
    (found,) = unknown_fields(document, kuberay_schema("RayService"))
    assert found.endswith(f".{complaint}")


def test_core_kinds_match_the_kubernetes_schemas(documents: list[Document]) -> None:
    core = [document for document in documents if document["kind"] not in RAY_KINDS]
    for document in core:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    broken = {**core[0], "spek": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_pod_templates_match_the_kubernetes_schemas(documents: list[Document]) -> None:
    templates = list(pod_templates(documents))
    (job,) = of_kind(documents, "RayJob")
    templates.append(("RayJob/submitter", job["spec"]["submitterPodTemplate"]))
    assert len(templates) >= 5
    for name, template in templates:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": "x"}}
        kubernetes_validate.validate({**pod, "spec": template["spec"]}, KUBERNETES, strict=True)
        pod_security, (container,) = template["spec"]["securityContext"], template["spec"]["containers"]
        assert pod_security["runAsNonRoot"] is True, name
        assert pod_security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert set(container["resources"]) == {"requests", "limits"}, name
        assert container["image"].endswith("rlaas:0.1.0"), name


def test_ray_nodes_have_probes_the_volume_and_the_configuration(documents: list[Document]) -> None:
    maps = {m["metadata"]["name"]: m["data"] for m in of_kind(documents, "ConfigMap")}
    (claim,) = of_kind(documents, "PersistentVolumeClaim")
    for name, template in pod_templates(documents):
        (container,) = template["spec"]["containers"]
        assert {"livenessProbe", "readinessProbe"} <= set(container), name
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert volumes["home"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        (environment,) = (maps[source["configMapRef"]["name"]] for source in container["envFrom"])
        assert environment["RLAAS_HOME"] == mounts["home"]
        assert environment["RLAAS_HOME_IS_SHARED"] == "true"
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
        assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
        # Read when Ray starts: a variable in the Serve configuration would come too late.
        assert {name: environment.get(name) for name in FAST_LANE} == dict(FAST_LANE)
        assert mounts["config"] == "/etc/rlaas"
        assert set(maps[volumes["config"]["configMap"]["name"]]) == {"serving.yaml", "training.yaml"}


def test_every_rlaas_variable_is_a_setting_and_no_secret_is_written_down(
    overlay: str, documents: list[Document]
) -> None:
    assert of_kind(documents, "Secret") == []
    seen = set()
    for name, template in pod_templates(documents):
        (container,) = template["spec"]["containers"]
        given = {variable["name"] for variable in container["env"]}
        assert {"RLAAS_SECRET"} <= given
        if overlay != "local":
            assert {"RLAAS_STATE_URL", "RLAAS_MLFLOW_URL"} <= given, name
        for variable in container["env"]:
            assert set(variable) == {"name", "valueFrom"}, name
            reference = variable["valueFrom"]["secretKeyRef"]
            assert reference["name"] == "rlaas-secrets"
            assert reference.get("optional", False) is (overlay == "local")
        seen |= given
    for document in of_kind(documents, "ConfigMap"):
        seen |= {key for key in document["data"] if key.startswith("RLAAS_")}
    assert {name.removeprefix("RLAAS_").lower() for name in seen} <= set(Settings.model_fields)


def test_worker_groups_write_their_bounds_out(overlay: str, documents: list[Document]) -> None:
    (service,), (job,) = of_kind(documents, "RayService"), of_kind(documents, "RayJob")
    for cluster in (service["spec"]["rayClusterConfig"], job["spec"]["rayClusterSpec"]):
        for group in cluster["workerGroupSpecs"]:
            assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
            if not cluster["enableInTreeAutoscaling"]:
                assert group["minReplicas"] == group["maxReplicas"]
        assert ("autoscalerOptions" in cluster) == cluster["enableInTreeAutoscaling"]
        assert cluster.get("authOptions") == (None if overlay == "local" else {"mode": "token"})
    platform = service["spec"]["rayClusterConfig"]
    assert platform["enableInTreeAutoscaling"] == (overlay != "local")
    assert ("gcsFaultToleranceOptions" in platform) == (overlay == "prod")
    assert service["spec"]["upgradeStrategy"]["type"] == ("None" if overlay == "local" else "NewCluster")
    gpus = [
        group["groupName"]
        for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        if "nvidia.com/gpu" in group["template"]["spec"]["containers"][0]["resources"]["limits"]
    ]
    assert gpus == (["gpu"] if overlay == "prod" else [])


def test_the_dashboard_is_closed_to_applications(documents: list[Document]) -> None:
    policies = of_kind(documents, "NetworkPolicy")
    for name, template in pod_templates(documents):
        labels = template["metadata"]["labels"]
        chosen = [p for p in policies if p["spec"]["podSelector"]["matchLabels"].items() <= labels.items()]
        assert chosen, f"{name} is open to everybody"
        for policy in chosen:
            for rule in policy["spec"]["ingress"]:
                peers = [peer.get("podSelector", {}).get("matchLabels", {}) for peer in rule["from"]]
                ports = [port["port"] for port in rule.get("ports", [])]
                if not ports:
                    assert peers == [{"rlaas.io/ray": "true"}], "every port is for the nodes themselves only"
                if 8265 in ports:
                    assert ports == [8265]
                    assert all(peers), "the dashboard is for named pods only"


def test_disruption_budgets_and_spread_choose_pods_that_exist(documents: list[Document]) -> None:
    templates = dict(pod_templates(documents))
    for budget in of_kind(documents, "PodDisruptionBudget"):
        wanted = dict(budget["spec"]["selector"]["matchLabels"])
        assert wanted.pop("ray.io/node-type") == "worker", "KubeRay's own label"
        assert wanted.items() <= templates["RayService/gateway"]["metadata"]["labels"].items()
    (spread,) = templates["RayService/gateway"]["spec"]["topologySpreadConstraints"]
    assert (
        spread["labelSelector"]["matchLabels"].items() <= templates["RayService/gateway"]["metadata"]["labels"].items()
    )


def test_every_manifest_is_used(repository: Path) -> None:
    for folder in (repository / "clusters" / "base", *(repository / "clusters" / "overlays" / o for o in OVERLAYS)):
        kustomization = (folder / "kustomization.yaml").read_text()
        yaml.safe_load(kustomization)
        for file in folder.rglob("*"):
            if file.is_file() and file.name != "kustomization.yaml":
                assert str(file.relative_to(folder)) in kustomization, file
