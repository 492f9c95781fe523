"""Who a candidate has to beat."""

from __future__ import annotations

from rlaas.errors import NotFoundError
from rlaas.pipeline.continuous.stage import Context
from rlaas.registry import CHAMPION, PolicyVersion

__all__ = ["CANDIDATE_TAG", "PARENT_TAG", "champion_of", "described", "opponent_of", "registered_as"]

CANDIDATE_TAG = "candidate"
"""Tag of a version: digest of the trained policies that it was chosen from."""
PARENT_TAG = "parent_version"
"""Tag of a version: the version that it was held against; none for a first one."""


def champion_of(context: Context) -> PolicyVersion | None:
    """The scenario's champion, or None while there is none."""
    try:
        return context.registry.get(context.scenario.name, CHAMPION)
    except NotFoundError:
        return None


def opponent_of(context: Context, candidate: str) -> PolicyVersion | None:
    """The version that a candidate is held against: the champion.

    Where this very candidate has become the champion since, it is still the one that it took over from: the same
    inputs give the same verdict again. None for the scenario's default baseline.
    """
    champion = champion_of(context)
    if champion is None or champion.tags.get(CANDIDATE_TAG) != candidate:
        return champion
    parent = champion.tags.get(PARENT_TAG)
    if parent is None:
        return None
    try:
        return context.registry.get(champion.name, int(parent))
    except NotFoundError:
        return None


def registered_as(context: Context, candidate: str) -> PolicyVersion | None:
    """The version that a candidate has been registered as, or None."""
    try:
        versions = context.registry.versions(context.scenario.name)
    except NotFoundError:
        return None
    return next((version for version in versions if version.tags.get(CANDIDATE_TAG) == candidate), None)


def described(version: PolicyVersion | None) -> str:
    """A version as an input of a stage: its number, and enough of its digest to tell two registries apart."""
    return "none" if version is None else f"version {version.version} ({version.digest[:12]})"
