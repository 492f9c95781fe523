"""What the registry says about one version of a policy."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlaas.errors import InvalidInputError
from rlaas.names import check_name
from rlaas.registry.lineage import as_text

__all__ = [
    "PolicyVersion",
    "check_alias",
    "check_document_name",
    "check_metrics",
    "check_params",
    "check_tags",
    "newest_first",
]

# Tags of rlaas itself on a version. Metrics and parameters stand there too (the run carries them for MLflow's pages):
# a list of versions is then one query, and what a version says does not change with its run.
DIGEST_TAG = "rlaas.digest"
METRICS_TAG = "rlaas.metrics"
PARAMS_TAG = "rlaas.params"
TENANT_TAG = "rlaas.tenant"
SCENARIO_TAG = "rlaas.scenario"
ALGORITHM_TAG = "rlaas.algorithm"
RESERVED_PREFIXES = ("rlaas.", "mlflow.", "lineage.")

# MLflow refuses dots in aliases and keeps "latest" and "v<number>"; a digit first would read as a version.
_ALIAS = re.compile(r"(?!latest$|v\d+$)[a-z][a-z0-9_-]{0,63}")
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./ :-]{0,199}")
_MAX_TEXT = 6_000  # MLflow's limit for a parameter
_MAX_DOCUMENT = 100_000  # MLflow's limit for a tag of a version


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One registered version.

    Attributes:
        name: the policy's name within its tenant.
        version: counts from 1; never used twice, not even after a deletion.
        aliases: sorted names that point to this version now (``champion``, ``candidate``).
        created_us: UTC microseconds.
        run_id: the MLflow run that holds the bundle.
        metrics: as registered.
        params: as registered; values that were not text are JSON.
        tags: the caller's tags, and ``lineage.*`` from the bundle.
        digest: sha256 of ``bundle.json``, which in turn holds the sha256 of every other file.
    """

    name: str
    version: int
    aliases: tuple[str, ...]
    created_us: int
    run_id: str
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    digest: str

    @classmethod
    def from_mlflow(cls, name: str, entity: Any, aliases: Mapping[str, Any]) -> PolicyVersion:
        """Read an MLflow model version.

        Args:
            name: the policy's name within its tenant.
            entity: ``mlflow.entities.model_registry.ModelVersion``.
            aliases: version number by alias of the whole registered model.
        """
        tags: dict[str, str] = dict(entity.tags)
        version = int(entity.version)
        return cls(
            name=name,
            version=version,
            aliases=tuple(sorted(alias for alias, target in aliases.items() if int(target) == version)),
            created_us=int(entity.creation_timestamp) * 1000,
            run_id=str(entity.run_id),
            metrics=json.loads(tags.get(METRICS_TAG, "{}")),
            params=json.loads(tags.get(PARAMS_TAG, "{}")),
            tags={k: v for k, v in sorted(tags.items()) if not k.startswith("rlaas.")},
            digest=tags[DIGEST_TAG],
        )


def newest_first(versions: list[PolicyVersion]) -> list[PolicyVersion]:
    """Sorted by version, the highest first."""
    return sorted(versions, key=lambda v: v.version, reverse=True)


def check_alias(alias: str) -> str:
    """Return a usable alias.

    Raises:
        InvalidInputError: not lower-case letters, digits, ``_ -`` after a letter, or one of MLflow's own words.
    """
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
        raise InvalidInputError(
            f"alias {str(alias)[:80]!r} is not usable; allowed: at most 64 lower-case letters, digits, '_', '-', "
            "starting with a letter, but not 'latest' or 'v<number>' (for example champion, candidate, challenger)",
            field="alias",
        )
    return alias


def check_metrics(metrics: Mapping[str, float] | None, *, field: str = "metrics") -> dict[str, float]:
    """Finite numbers by plain keys.

    Raises:
        InvalidInputError: a key or value that MLflow (or JSON) could not hold.
    """
    checked: dict[str, float] = {}
    for key, value in (metrics or {}).items():
        _check_key(key, field=field)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InvalidInputError(
                f"{field}.{key} is {value!r}; only finite numbers are allowed", field=f"{field}.{key}"
            )
        checked[key] = number
    return _bounded(checked, field=field)


def check_params(params: Mapping[str, object] | None) -> dict[str, str]:
    """Text by plain keys; values that are not text become JSON, None is left out.

    Raises:
        InvalidInputError: a key that MLflow could not hold, or a value of more than 6,000 characters.
    """
    return _bounded(_texts(params, field="params"), field="params")


def check_tags(tags: Mapping[str, object] | None) -> dict[str, str]:
    """Text by plain keys outside the reserved prefixes; values as for parameters.

    Raises:
        InvalidInputError: a key that MLflow could not hold or that is reserved, or a value that is too long.
    """
    checked = _texts(tags, field="tags")
    for key in checked:
        if key.startswith(RESERVED_PREFIXES):
            raise InvalidInputError(
                f"tags.{key} is reserved; allowed: keys that do not start with {', '.join(RESERVED_PREFIXES)}",
                field=f"tags.{key}",
            )
    return checked


def check_document_name(name: str) -> str:
    """A plain file name that ends in ``.json``.

    Raises:
        InvalidInputError: anything else.
    """
    check_name(name, field="documents")
    if not name.endswith(".json"):
        raise InvalidInputError(f"documents.{name} must end in .json", field=f"documents.{name}")
    return name


def _texts(values: Mapping[str, object] | None, *, field: str) -> dict[str, str]:
    known = {key: value for key, value in (values or {}).items() if value is not None}
    texts = {_check_key(key, field=field): as_text(value) for key, value in known.items()}
    for key, text in texts.items():
        if len(text) > _MAX_TEXT:
            raise InvalidInputError(
                f"{field}.{key} has {len(text)} characters; at most {_MAX_TEXT} are allowed", field=f"{field}.{key}"
            )
    return texts


def _check_key(key: object, *, field: str) -> str:
    # A key is also a path in MLflow's file store: it must not climb.
    if isinstance(key, str) and _KEY.fullmatch(key) and not {"", ".", ".."} & set(key.split("/")):
        return key
    raise InvalidInputError(
        f"{field} has key {str(key)[:80]!r}; allowed: letters, digits, space and '_ . / : -', at most 200 characters",
        field=field,
    )


def _bounded(values: dict[str, Any], *, field: str) -> dict[str, Any]:
    size = len(json.dumps(values))
    if size > _MAX_DOCUMENT:
        raise InvalidInputError(f"{field} takes {size} characters; at most {_MAX_DOCUMENT} are allowed", field=field)
    return values
