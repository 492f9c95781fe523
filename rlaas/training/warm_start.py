"""Starting a training run from networks that exist: an offline fit, a checkpoint or a bundle.

Taken over are the policy, what its normaliser has seen (as that many prior observations), and the critics where they
mean the same in the run to come. What does not fit is refused before anything starts.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rlaas.bundles import MODEL, WEIGHTS, load_bundle
from rlaas.errors import ConfigurationError
from rlaas.scenarios import Scenario
from rlaas.training.checkpoints import ALGORITHM, CheckpointStore
from rlaas.training.config import Algorithm, TrainingConfig

__all__ = ["WarmStart", "apply_warm_start", "check_warm_start", "read_warm_start"]

ACTIVATIONS: Mapping[str, str] = {"sac": "relu", "ppo": "tanh"}
_MODULE = "learner_group/learner/rl_module/default_policy"
_DAMAGE = (
    OSError,
    LookupError,
    TypeError,
    ValueError,
    EOFError,
    ImportError,
    AttributeError,
    pickle.UnpicklingError,
    SafetensorError,
)
# A bundle that does not say how much its normaliser has seen counts as this many observations.
UNKNOWN_COUNT = 1_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """What is taken over.

    Attributes:
        path: where it was read.
        kind: ``fit``, ``checkpoint`` or ``bundle``.
        policy: tensors of the policy network by name.
        activation: of its hidden layers.
        moments: state of the :class:`~rlaas.training.conditioning.RunningMoments` behind the normaliser.
        gamma: discount factor of the critics; None where there are none.
        critics: tensors of a fit's critics (``value.*``, ``critic.*``), or of all else in a checkpoint's module.
        scales: of a fit's rewards: ``reward_scale`` and ``utility_scale``.
    """

    path: Path
    kind: str
    policy: Mapping[str, Tensor]
    activation: str
    moments: Mapping[str, Any]
    gamma: float | None = None
    critics: Mapping[str, Tensor] = field(default_factory=dict)
    scales: Mapping[str, Any] = field(default_factory=dict)

    def shape(self) -> dict[str, Any]:
        """Features, weights of a preference, hidden widths and outputs of the policy."""
        layers = [value for name, value in self.policy.items() if name.startswith("body.layers.") and value.ndim == 2]
        n_features = len(self.policy["normaliser.mean"])
        return {
            "features": n_features,
            "objectives": layers[0].shape[1] - n_features,
            "hidden": [int(layer.shape[0]) for layer in layers[:-1]],
            "outputs": int(layers[-1].shape[0]),
        }


def read_warm_start(path: Path | str) -> WarmStart:
    """Read what a folder holds.

    Args:
        path: the output folder of an offline fit or of a training run, a checkpoint in it, or a bundle. An RLlib
            checkpoint is cloudpickle: name only such as were written here.

    Raises:
        ConfigurationError: there is no such folder, or nothing in it to start from.
        BundleError: the bundle is damaged.
    """
    given = Path(path).expanduser()
    newest = CheckpointStore(given / "checkpoints").newest()
    of_run = [newest.folder / ALGORITHM] if newest is not None else []
    for folder in (*of_run, given / ALGORITHM, given / "checkpoint", given, given / "bundle"):
        try:
            if (folder / "fit.json").is_file():
                return _from_fit(folder)
            if (folder / "rllib_checkpoint.json").is_file():
                return _from_checkpoint(folder)
        except _DAMAGE as problem:
            reason = " ".join(str(problem).split())
            raise ConfigurationError(f"warm_start {given} is damaged: {reason}", field="warm_start") from problem
        if (folder / "bundle.json").is_file():
            return _from_bundle(folder)
    raise ConfigurationError(
        f"warm_start {given} holds nothing to start from; allowed: the output folder of rlaas fit or rlaas train, "
        "a checkpoint in it, or a bundle",
        field="warm_start",
    )


def check_warm_start(config: TrainingConfig, algorithm: Algorithm, scenario: Scenario) -> None:
    """Refuse a warm start that does not fit the run, before anything is built.

    Raises:
        ConfigurationError: see :func:`read_warm_start`; or the networks there have another shape, naming which.
    """
    if config.warm_start is None:
        return
    warm = read_warm_start(config.warm_start)
    m, action = len(scenario.objectives), scenario.single_action_space
    wanted = {
        "features": len(scenario.observation_names),
        "objectives": m if m > 1 else 0,
        "hidden": list(config.hidden),
        "outputs": int(action.n) if isinstance(action, spaces.Discrete) else 2 * int(np.prod(action.shape)),
    }
    there = warm.shape()
    means = {
        "features": "another scenario, or other options of it",
        "objectives": "fit with conditioned: true" if m > 1 else "a policy for one objective takes no preference",
        "hidden": f"set hidden: {there['hidden']}",
        "outputs": "another action space",
    }
    for name, value in wanted.items():
        if there[name] != value:
            raise ConfigurationError(
                f"warm_start {warm.path}: {name} {there[name]} there, {value} in this run ({means[name]})",
                field="warm_start",
            )
    if warm.activation != ACTIVATIONS[algorithm]:
        raise ConfigurationError(
            f"warm_start {warm.path}: its networks are {warm.activation}, those of {algorithm} are "
            f"{ACTIVATIONS[algorithm]} (fit with fit.algorithm: {algorithm})",
            field="warm_start",
        )


def apply_warm_start(algo: Any, path: Path | str) -> dict[str, Any]:
    """Put what a folder holds into a fresh algorithm.

    Returns:
        What was taken over: ``path``, ``kind``, ``observations`` (prior ones of the normaliser) and ``critics``
        (``taken``, or why not).

    Raises:
        ConfigurationError: see :func:`read_warm_start`; or the networks do not fit.
    """
    warm = read_warm_start(path)
    net = algo.net
    try:
        net.policy.load_state_dict(dict(warm.policy))
    except RuntimeError as problem:
        reason = " ".join(str(problem).split())
        raise ConfigurationError(f"warm_start {warm.path} does not fit: {reason}", field="warm_start") from problem
    net.policy.keep_noise()
    algo.moments.set_state(dict(warm.moments))
    critics = _whole_module(algo, warm) if warm.kind == "checkpoint" else _fitted_critics(algo, warm)
    algo.learners.lead()
    return {
        "path": str(warm.path),
        "kind": warm.kind,
        "observations": int(algo.moments.count),
        "critics": critics,
    }


def _whole_module(algo: Any, warm: WarmStart) -> str:
    """Everything else in the module, where the checkpoint's was of the same kind."""
    net = algo.net
    mine = {name: value for name, value in net.state_dict().items() if not name.startswith("policy.")}
    if {name: value.shape for name, value in mine.items()} != {k: v.shape for k, v in warm.critics.items()}:
        return "not taken: they are those of another algorithm"
    if warm.gamma != algo.config.gamma:
        return f"not taken: their gamma is {warm.gamma}, this run's is {algo.config.gamma}"
    net.load_state_dict(dict(warm.critics), strict=False)
    algo.keep_critics()
    return "taken"


def _fitted_critics(algo: Any, warm: WarmStart) -> str:
    """A fit's twin critic for SAC, its value network for PPO."""
    net = algo.net
    wanted = "critic" if hasattr(net, "target") else "value"
    found = {n.removeprefix(f"{wanted}."): v for n, v in warm.critics.items() if n.startswith(f"{wanted}.")}
    if not found:
        return f"not taken: there is no {'twin critic' if wanted == 'critic' else 'value network'}"
    if warm.gamma != algo.config.gamma:
        return f"not taken: their gamma is {warm.gamma}, this run's is {algo.config.gamma}"
    scales = torch.tensor(warm.scales["reward_scale"])
    if wanted == "critic":
        _add_head(net.critic, found)
        net.target.load_state_dict(net.critic.state_dict())
        net.utility_scale.fill_(warm.scales["utility_scale"])
    else:
        shapes = {name: value.shape for name, value in net.critic.state_dict().items()}
        if shapes != {name: value.shape for name, value in found.items()}:
            return "not taken: the value network has other heads"
        if net.reward_scale.numel() != len(scales):
            return "not taken: rewards are scaled otherwise"
        # PPO wants returns of about unit deviation, a fit scales steps to it. The last layer is linear: scaled with
        # the rewards it says the same.
        factor = math.sqrt(1.0 - algo.config.gamma**2)
        head = f"layers.{max(int(name.split('.')[1]) for name in found if name.startswith('layers.'))}."
        scaled = {name: value * factor if name.startswith(head) else value for name, value in found.items()}
        net.critic.load_state_dict(scaled)
        scales = scales * factor
    net.reward_scale.copy_(scales.reshape(net.reward_scale.shape))
    algo.keep_critics()
    return "taken"


def _add_head(critic: torch.nn.Module, found: Mapping[str, Tensor]) -> None:
    """A fit's critics have a head per objective; the last head here, of the entropy bonus, starts at nothing."""
    state = critic.state_dict()
    for name, value in found.items():
        mine = state[name]
        mine[..., : value.shape[-1]] = value
        mine[..., value.shape[-1] :] = 0.0
    critic.load_state_dict(state)


def _from_fit(folder: Path) -> WarmStart:
    document = json.loads((folder / "fit.json").read_text())
    critics: dict[str, Tensor] = {}
    for name in ("value", "critic"):
        file = folder / f"{name}.safetensors"
        if file.is_file():
            critics |= {f"{name}.{key}": tensor for key, tensor in load_file(file).items()}
    return WarmStart(
        path=folder,
        kind="fit",
        policy=load_file(folder / "policy.safetensors"),
        activation=document["activation"],
        moments={name: np.asarray(value) for name, value in document["moments"].items()},
        gamma=document["gamma"],
        critics=critics,
        scales={name: document[name] for name in ("reward_scale", "utility_scale")},
    )


def _from_checkpoint(folder: Path) -> WarmStart:
    def load(name: str) -> Any:
        return pickle.loads((folder / f"{name}.pkl").read_bytes())

    tensors = {name: torch.as_tensor(value) for name, value in load(f"{_MODULE}/module_state").items()}
    _, arguments = load(f"{_MODULE}/class_and_ctor_args")["ctor_args_and_kwargs"]
    (config, *_), _ = load("class_and_ctor_args")["ctor_args_and_kwargs"]
    return WarmStart(
        path=folder,
        kind="checkpoint",
        policy={name.removeprefix("policy."): v for name, v in tensors.items() if name.startswith("policy.")},
        activation=arguments["model_config"]["activation"],
        moments=load("algorithm_state")["packed"]["moments"],
        gamma=config["gamma"],
        critics={name: value for name, value in tensors.items() if not name.startswith("policy.")},
    )


def _from_bundle(folder: Path) -> WarmStart:
    manifest = load_bundle(folder).manifest
    policy = load_file(folder / WEIGHTS)
    if "body.layers.0.weight" not in policy:
        raise ConfigurationError(f"warm_start {folder} is a configuration, not a network", field="warm_start")
    seen = manifest.lineage.get("rows") or manifest.lineage.get("steps") or UNKNOWN_COUNT
    count, deviation = float(seen), policy["normaliser.deviation"].double().numpy()
    operations = {node.op_type for node in onnx.load(folder / MODEL).graph.node if node.output[0] == "layer1"}
    return WarmStart(
        path=folder,
        kind="bundle",
        policy=policy,
        activation="relu" if "Relu" in operations else "tanh",
        moments={
            "count": count,
            "mean": policy["normaliser.mean"].double().numpy(),
            "squares": deviation**2 * count,
        },
    )
