"""Rendering the Kubernetes manifests and looking into them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
OVERLAYS = ("local", "staging", "prod")
SCHEMAS = Path(os.environ.get("RLAAS_KUBERAY_SCHEMAS", ROOT.parent / "shared" / "kuberay"))

Document = dict[str, Any]


def render(folder: Path) -> list[Document]:
    """All documents of a kustomization."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: nothing renders the manifests")
    answer = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "Warning" not in answer.stderr, answer.stderr
    return [document for document in yaml.safe_load_all(answer.stdout) if document]


def of_kind(documents: list[Document], kind: str) -> list[Document]:
    """Those of a kind."""
    return [document for document in documents if document["kind"] == kind]


def kuberay_schema(kind: str) -> Document:
    """JSON schema of ``RayService`` or ``RayJob``."""
    path = SCHEMAS / f"{kind.lower()}s.v1.json"
    if not path.is_file():
        pytest.skip(f"no schema of {kind} at {path}; set RLAAS_KUBERAY_SCHEMAS")
    schema: Document = json.loads(path.read_text())["openAPIV3Schema"]
    return schema


def unknown_fields(value: Any, schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Paths in ``value`` that an openAPI schema does not mention; the API server would drop them silently."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown_fields(item, schema.get("items", {}), f"{path}[{index}]")
    elif isinstance(value, dict):
        further = schema.get("additionalProperties")
        known = schema.get("properties", {})
        if not path or path == ".metadata" or path.endswith(".template.metadata"):
            # ObjectMeta: the schemas leave it to the API server.
            known = {"apiVersion": {}, "kind": {}, **known} if not path else {}
        for key, item in value.items():
            if key in known:
                yield from unknown_fields(item, known[key], f"{path}.{key}")
            elif isinstance(further, dict):
                yield from unknown_fields(item, further, f"{path}.{key}")
            elif not path.endswith("metadata"):
                yield f"{path}.{key}"


def pod_templates(documents: list[Document]) -> Iterator[tuple[str, Document]]:
    """Name and pod template of every Ray node (not of the job's submitter)."""
    for document in documents:
        cluster = {"RayService": "rayClusterConfig", "RayJob": "rayClusterSpec"}.get(document["kind"])
        if cluster is None:
            continue
        spec = document["spec"][cluster]
        yield f"{document['kind']}/head", spec["headGroupSpec"]["template"]
        for group in spec["workerGroupSpecs"]:
            yield f"{document['kind']}/{group['groupName']}", group["template"]
