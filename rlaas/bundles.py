"""Bundles: the folder in which a policy leaves the trainer, and the runtime that executes it.

A bundle holds ``policy.onnx`` (preprocessing, network and distribution parameters), ``policy.safetensors`` (the
weights) and ``bundle.json`` (schema version, sha256 of each file, spaces, objectives, golden batch). Nothing in it
is executable by unpickling.

ONNX interface: inputs ``observation`` float32 [n, n_features] and, where ``preference_conditioned``, ``preference``
float32 [n, n_objectives]. Outputs: a box policy gives ``mean`` and ``log_std`` float32 [n, n_actions] of the
Gaussian before the tanh; a discrete policy gives ``logits`` float32 [n, n_choices], those of several components
behind one another. A policy with a memory also takes ``state`` float32 [n, n_state] (zeros when an episode begins) and
gives ``next_state``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlaas.errors import BundleError, InvalidInputError
from rlaas.exploration import BoxHead, ChoiceHead
from rlaas.files import sha256_of, write_text
from rlaas.objectives import Objective, Preference

__all__ = [
    "BoxAction",
    "BundleManifest",
    "BundlePolicy",
    "ChoicesAction",
    "DiscreteAction",
    "GoldenBatch",
    "ObservationSpec",
    "load_bundle",
    "write_manifest",
]

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
MODEL = "policy.onnx"
WEIGHTS = "policy.safetensors"
GOLDEN_TOLERANCE = 1e-5

Float32 = NDArray[np.float32]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ObservationSpec(_Document):
    """Feature names and bounds, one each; infinite bounds are written as null."""

    names: tuple[str, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


class BoxAction(_Document):
    """A continuous action: each component between ``low`` and ``high`` in its own unit."""

    kind: Literal["box"] = "box"
    low: tuple[float, ...]
    high: tuple[float, ...]


class DiscreteAction(_Document):
    """One of ``n`` choices."""

    kind: Literal["discrete"] = "discrete"
    n: int = Field(ge=1)


class ChoicesAction(_Document):
    """One choice in each of several components, of ``sizes`` choices each."""

    kind: Literal["choices"] = "choices"
    sizes: tuple[int, ...] = Field(min_length=1)


class GoldenBatch(_Document):
    """Inputs and the outputs they must give, within 1e-5; checked at every load."""

    observations: tuple[tuple[float, ...], ...]
    preferences: tuple[tuple[float, ...], ...] | None
    states: tuple[tuple[float, ...], ...] | None = None
    outputs: dict[str, tuple[tuple[float, ...], ...]]


class BundleManifest(_Document):
    """The content of ``bundle.json``."""

    schema_version: Literal[1] = 1
    scenario: str
    algorithm: str
    created: str = Field(description="UTC, ISO 8601")
    observation: ObservationSpec
    action: Annotated[BoxAction | DiscreteAction | ChoicesAction, Field(discriminator="kind")]
    objectives: tuple[dict[str, Any], ...]
    measures: tuple[str, ...] = Field(default=(), description="further fields an outcome may carry")
    modes: dict[str, dict[str, float]] = Field(default_factory=dict, description="preference of each mode")
    preference_conditioned: bool
    n_state: int = Field(default=0, ge=0, description="numbers that a decision maker carries from step to step")
    deterministic: bool = Field(default=False, description="has no distribution to sample from")
    golden: GoldenBatch
    files: dict[str, str] = Field(description="sha256 of each other file")
    lineage: dict[str, Any] = Field(default_factory=dict)


def write_manifest(folder: Path, manifest: BundleManifest) -> None:
    """Write ``bundle.json`` last, atomically: a folder without it is no bundle."""
    write_text(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")


def load_bundle(folder: Path | str) -> BundlePolicy:
    """Load a bundle, check every digest and replay its golden batch.

    Raises:
        BundleError: a file is missing or changed, the document is malformed, or the golden batch disagrees.
    """
    folder = Path(folder)
    try:
        manifest = BundleManifest.model_validate(json.loads((folder / MANIFEST).read_text()))
    except OSError as problem:
        raise BundleError(f"{folder.name}: {MANIFEST} cannot be read: {problem.strerror}", field=MANIFEST) from problem
    except (ValidationError, json.JSONDecodeError) as problem:
        first = str(problem).splitlines()[0]
        raise BundleError(f"{folder.name}: {MANIFEST} is malformed: {first}", field=MANIFEST) from problem
    if MODEL not in manifest.files:
        raise BundleError(f"{folder.name}: {MANIFEST} lists no {MODEL}", field=MODEL)
    for name, digest in manifest.files.items():
        if "/" in name or not (folder / name).is_file():
            raise BundleError(f"{folder.name}: {name} is missing", field=name)
        if sha256_of(folder / name) != digest:
            raise BundleError(f"{folder.name}: {name} does not match its sha256", field=name)
    policy = BundlePolicy(manifest, (folder / MODEL).read_bytes())
    policy.check_golden()
    return policy


class BundlePolicy:
    """A loaded bundle: observations [n, n_features] (and preferences) in, actions and propensities out."""

    def __init__(self, manifest: BundleManifest, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        # One small network per replica: threads of its own would fight the replicas for cores.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as problem:  # onnxruntime raises a family of C++ errors without a common base
            first = str(problem).splitlines()[0]
            raise BundleError(f"{MODEL} cannot be loaded: {first}", field=MODEL) from problem
        self.manifest = manifest
        self.n_features = len(manifest.observation.names)
        self.objectives = tuple(Objective(**o) for o in manifest.objectives)
        self._outputs = [o.name for o in self._session.get_outputs()]
        self._low = np.array([-np.inf if v is None else v for v in manifest.observation.low], dtype=np.float64)
        self._high = np.array([np.inf if v is None else v for v in manifest.observation.high], dtype=np.float64)
        self._head = _head_of(manifest)

    @property
    def outcome_fields(self) -> tuple[str, ...]:
        """What an outcome for this policy may carry: objectives and measures."""
        return (*(o.name for o in self.objectives), *self.manifest.measures)

    def check_observations(self, observations: object, *, field: str = "observations") -> Float32:
        """Turn rows of numbers into float32 [n, n_features].

        Raises:
            InvalidInputError: not numbers, wrong shape, or NaN/Inf; names the row and the feature.
        """
        try:
            array = np.asarray(observations, dtype=np.float64) if _numeric(observations) else None
        except (TypeError, ValueError):
            array = None
        if array is None:
            raise InvalidInputError(f"{field} must hold rows of {self.n_features} numbers of equal length", field=field)
        if array.ndim != 2 or array.shape[1] != self.n_features or array.shape[0] == 0:
            raise InvalidInputError(
                f"{field} has shape {list(array.shape)}; expected [n, {self.n_features}] with n >= 1", field=field
            )
        with np.errstate(over="ignore"):
            rows = array.astype(np.float32)
        finite = np.isfinite(rows)
        if not finite.all():
            row, column = (int(i) for i in np.argwhere(~finite)[0])
            name = self.manifest.observation.names[column]
            raise InvalidInputError(
                f"{field}[{row}] feature {name!r} is {array[row, column]}; only finite float32 numbers are allowed",
                field=f"{field}[{row}].{name}",
            )
        return rows

    def preference(self, weights: Mapping[str, float], *, field: str = "preference") -> Float32:
        """Checked weights float32 [n_objectives].

        Raises:
            InvalidInputError: see :meth:`rlaas.objectives.Preference.of`.
        """
        return Preference.of(self.objectives, weights, field=field).array().astype(np.float32)

    def forward(
        self, observations: Float32, preferences: Float32 | None = None, states: Float32 | None = None
    ) -> dict[str, Float32]:
        """Raw outputs of the network by name, each [n, ...].

        Args:
            observations: float32 [n, n_features].
            preferences: float32 [n, n_objectives] or [n_objectives]; ignored by an unconditioned policy.
            states: float32 [n, n_state] that the step before gave; None for the first step of an episode.

        Raises:
            InvalidInputError: the policy is preference-conditioned and no preference was given.
            BundleError: an output holds NaN: no action can be made of it.
        """
        feed: dict[str, Float32] = {"observation": observations}
        if self.manifest.preference_conditioned:
            if preferences is None:
                raise InvalidInputError("this policy needs a preference or a mode", field="preference")
            wanted = (len(observations), len(self.objectives))
            if preferences.size == wanted[1] and wanted[0] == 1 and preferences.dtype == np.float32:
                feed["preference"] = preferences.reshape(wanted)  # the hot path: nothing to copy
            else:
                feed["preference"] = np.ascontiguousarray(np.broadcast_to(preferences, wanted), dtype=np.float32)
        if self.manifest.n_state:
            feed["state"] = (
                np.zeros((len(observations), self.manifest.n_state), dtype=np.float32) if states is None else states
            )
        outputs = dict(zip(self._outputs, self._session.run(None, feed), strict=True))
        for name, values in outputs.items():
            if math.isnan(values.min()):  # a minimum is NaN where anything is; the largest of NaNs would be choice 0
                raise BundleError(f"the network's output {name!r} is NaN", field=name)
        return outputs

    def act(
        self,
        observations: Float32,
        preferences: Float32 | None = None,
        *,
        rng: np.random.Generator | None = None,
        epsilon: float = 0.0,
    ) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
        """Actions and their propensities, of a policy without a memory.

        Args:
            observations: float32 [n, n_features].
            preferences: float32 [n, n_objectives] or [n_objectives].
            rng: samples from the policy's distribution; without it the mode of the distribution is taken.
            epsilon: share of rows whose whole action is uniform instead: over the action's box, or over what each
                component allows (a choice that a mask forbids is never explored).

        Returns:
            Actions ([n, n_actions] float64 within the bounds, [n] int64, or [n, n_components] int64) and propensities
            [n]: the probability of a discrete action, the log-density of a box action in the normalised box [-1, 1]
            with the tanh Jacobian, or None where the choice was deterministic. With ``epsilon`` they are those of the
            mixture (1 - epsilon) pi + epsilon uniform.

        Raises:
            InvalidInputError: see :meth:`check_epsilon`, or ``epsilon`` without ``rng``.
        """
        actions, propensities, _ = self.step(observations, preferences, None, rng=rng, epsilon=epsilon)
        return actions, propensities

    def step(
        self,
        observations: Float32,
        preferences: Float32 | None,
        states: Float32 | None,
        *,
        rng: np.random.Generator | None = None,
        epsilon: float = 0.0,
    ) -> tuple[NDArray[Any], NDArray[np.float64] | None, Float32 | None]:
        """What :meth:`act` gives, and the states [n, n_state] for the next step (None without a memory)."""
        epsilon = self.check_epsilon(epsilon)
        if epsilon > 0 and rng is None:
            raise InvalidInputError("epsilon needs an rng to explore with", field="epsilon")
        out = self.forward(observations, preferences, states)
        return *self._head.act(out, rng, epsilon), out.get("next_state")

    def modes(self, outputs: Mapping[str, Float32]) -> NDArray[Any]:
        """The actions that :meth:`act` takes without sampling, from the outputs of :meth:`forward`."""
        return self._head.act(outputs, None, 0.0)[0]

    def check_epsilon(self, epsilon: object) -> float:
        """The share of exploration, where this policy can have it.

        Raises:
            InvalidInputError: not in [0, 1], or above 0 for a deterministic policy over a box, whose actions have no
                density.
        """
        return self._head.check_epsilon(epsilon)

    def propensities(
        self,
        observations: Float32,
        actions: object,
        preferences: Float32 | None = None,
        epsilon: float = 0.0,
        *,
        greedy: bool = False,
        states: Float32 | None = None,
    ) -> NDArray[np.float64]:
        """What :meth:`act` would have returned as propensities [n], had it taken these actions.

        Args:
            observations: float32 [n, n_features].
            actions: as :meth:`act` gives them, in their unit, before any shield; one choice may be a column [n, 1].
            preferences: float32 [n, n_objectives] or [n_objectives].
            epsilon: share of exploration.
            greedy: of the policy as it acts without an ``rng``; a deterministic policy always does.
            states: float32 [n, n_state] before each row, of a policy with a memory.

        Raises:
            InvalidInputError: actions of another shape or outside the action's range, a memory without states, or a
                box policy that takes one action: it has no density.
        """
        epsilon = self._head.check_epsilon(epsilon)
        return self._head.propensities(self._recall(observations, preferences, states), actions, epsilon, greedy=greedy)

    def probabilities(
        self,
        observations: Float32,
        preferences: Float32 | None = None,
        epsilon: float = 0.0,
        *,
        greedy: bool = False,
        states: Float32 | None = None,
    ) -> NDArray[np.float64]:
        """Probability of every choice [n, n_choices] of a discrete policy; arguments as of :meth:`propensities`.

        Raises:
            InvalidInputError: the action is no single choice, or a memory without states.
        """
        if not isinstance(self._head, ChoiceHead):
            raise InvalidInputError("an action in a box has no table of probabilities", field="action")
        epsilon = self._head.check_epsilon(epsilon)
        return self._head.probabilities(self._recall(observations, preferences, states), epsilon, greedy=greedy)

    def _recall(self, observations: Float32, preferences: Float32 | None, states: Float32 | None) -> dict[str, Float32]:
        """Outputs of the network for rows of a log, whose states nobody but the caller knows."""
        if self.manifest.n_state and states is None:
            raise InvalidInputError("this policy has a memory: its propensities need the states before", field="states")
        return self.forward(observations, preferences, states)

    def check_golden(self) -> None:
        """Replay the golden batch.

        Raises:
            BundleError: an output is missing, not finite, or off by more than 1e-5 (relative to max(1, |value|)).
        """
        golden = self.manifest.golden
        preferences = None if golden.preferences is None else np.array(golden.preferences, dtype=np.float32)
        states = None if golden.states is None else np.array(golden.states, dtype=np.float32)
        try:
            out = self.forward(np.array(golden.observations, dtype=np.float32), preferences, states)
        except Exception as problem:  # any failure of the runtime means that the bundle cannot be served
            first = str(problem).splitlines()[0]
            raise BundleError(f"the golden batch cannot be run: {first}", field="golden") from problem
        for name, expected in golden.outputs.items():
            if name not in out:
                raise BundleError(f"{MODEL} has no output {name!r}", field=f"golden.{name}")
            want, got = np.array(expected, dtype=np.float64), out[name].astype(np.float64)
            if want.shape != got.shape:
                raise BundleError(
                    f"golden batch: {name} has shape {got.shape}, expected {want.shape}", field=f"golden.{name}"
                )
            error = float(np.max(np.abs(got - want) / np.maximum(1.0, np.abs(want)), initial=0.0))
            if not error <= GOLDEN_TOLERANCE:
                raise BundleError(
                    f"golden batch: {name} is off by {error:.2e} (at most {GOLDEN_TOLERANCE:g} is allowed)",
                    field=f"golden.{name}",
                )


def _head_of(manifest: BundleManifest) -> BoxHead | ChoiceHead:
    action = manifest.action
    if isinstance(action, BoxAction):
        return BoxHead(action.low, action.high, deterministic=manifest.deterministic)
    sizes, single = ((action.n,), True) if isinstance(action, DiscreteAction) else (action.sizes, False)
    return ChoiceHead(sizes, single=single, deterministic=manifest.deterministic)


def _numeric(value: object) -> bool:
    """True for nested lists of real numbers; JSON strings, booleans and nulls are not numbers."""
    if isinstance(value, np.ndarray):
        return bool(np.issubdtype(value.dtype, np.floating) or np.issubdtype(value.dtype, np.integer))
    if isinstance(value, list | tuple):
        return all(_numeric(item) for item in value)
    return isinstance(value, int | float) and not isinstance(value, bool)
