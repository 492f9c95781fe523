"""network5g as a scenario: options, objectives, modes, targets and guards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rlaas.errors import ConfigurationError, InvalidInputError, check_choice
from rlaas.objectives import Mode, Preference, Rule
from rlaas.scenarios.base import EvaluationProtocol, Scenario, Target, VectorScenarioEnv
from rlaas.scenarios.checks import available_bytes, check_environment, check_num_envs
from rlaas.scenarios.network5g.baselines import DEFAULT, make_baselines, make_tunables
from rlaas.scenarios.network5g.control import action_space
from rlaas.scenarios.network5g.engine import MOBILITY, Network, build
from rlaas.scenarios.network5g.env import VectorNetwork5G
from rlaas.scenarios.network5g.geography import SIZES, USERS
from rlaas.scenarios.network5g.objectives import PART_NAMES, SERVED, make_objectives, objective_values, step_rewards
from rlaas.scenarios.network5g.observation import OBSERVATION_NAMES, observation_space
from rlaas.scenarios.network5g.options import (
    changed_radio,
    check_carrier,
    check_flag,
    check_number,
    check_whole,
    choose_events,
    choose_layout,
    choose_power_models,
    choose_traces,
    choose_users,
    regime_for,
    tiled,
)
from rlaas.scenarios.network5g.reference import LOADS, Reference, reference
from rlaas.scenarios.network5g.rendering import draw_network
from rlaas.scenarios.reports import Report, Section
from rlaas.scenarios.tensors import TensorEnv
from rlaas.scenarios.tuned import tuned_baselines

__all__ = ["Network5G"]

CONTROLS = ("cell", "central")
MOST_STEPS = 10**9
MANY = 4096
"""Environments from which on it is asked whether there is memory for them."""
MODES: dict[str, tuple[tuple[float, float, float, float], str]] = {
    # latency, throughput, energy, satisfaction
    "emergency": ((0.6, 0.2, 0.1, 0.1), "Delay first: rescue services share the network"),
    "normal": ((0.25, 0.25, 0.25, 0.25), "All four objectives alike"),
    "energy_saving": ((0.15, 0.1, 0.6, 0.15), "Power first: a quiet night"),
    "throughput": ((0.15, 0.6, 0.1, 0.15), "Rate first: a stadium or a software release"),
}

# Whatever the mode: a network that saves energy by serving nobody is not a choice.
RULES = (Rule(objective="satisfaction", at_least=0.8), Rule(objective="latency", at_most=1.5))


class Network5G(Scenario):
    """A 5G radio network whose cells set power, tilt, handover, slices, fairness and sleep every 100 ms.

    With ``control="cell"`` one policy serves any number of cells: each cell is a row with its own observation, action
    and reward. With ``control="central"`` one decision maker sets all cells of a network at once.

    Results are comparable with the frozen reference (:attr:`reference_hash`) only where every option below ``hour`` has
    its default. Other networks take the arrivals *per cell* of the nearest size, and its default's figures to
    normalise.

    Args:
        size: ``small`` (3 sectors facing each other, 15 users), ``medium`` (7 omnidirectional cells, 70 users,
            wrap-around) or ``large`` (7 three-sector sites, 420 users, wrap-around).
        load: offered load: the default uses 15, 35 or 70 % of the resource blocks at ``low``, ``mid``, ``high``.
        control: ``cell`` or ``central``.
        episode_steps: steps of 100 ms until truncation.
        hour: hour of the day, from 0 to below 24; None draws one per episode from eight, weighted by demand.
        hours_per_s: how far the clock moves per simulated second; 0 keeps the hour within an episode.
        cells: number of cells on a hexagonal grid instead of the size's; wraps around where sites are 7 or 19.
        sectors: 1 (omnidirectional) or 3 per site, with ``cells``.
        users: number of users instead of the size's (ten per cell with ``cells`` or ``sites``), 3 or more.
        sites: a CSV file of a real network: positions and azimuths; see
            :func:`~rlaas.scenarios.network5g.geography.read_sites`.
        propagation: ``uma`` or ``umi`` (TR 38.901).
        indoor: share of users indoors, behind a wall and standing still.
        inter_site_m: distance of neighbouring sites, where no file says it.
        carrier_ghz, bandwidth_mhz, subcarrier_khz: the carrier and its numerology.
        urllc_subcarrier_khz: numerology of the URLLC slice's bandwidth part; None for the carrier's.
        modulation: ``64qam`` or ``256qam``. layers: most spatial layers, 1 to 4.
        columns: antenna columns, 1, 2, 4 or 8: with more than one each user gets the best beam of a codebook.
        mobility: ``waypoint``, ``gauss_markov`` or ``trace``.
        traces: for ``trace``: a file (see :func:`~rlaas.scenarios.network5g.measured.read_traces`), or positions
            [n, 2] in m every 100 ms, one array per trace, within 1,000 km of the origin.
        power_model: name of a power model, or one per cell; see
            :data:`~rlaas.scenarios.network5g.power.POWER_MODELS`.
        embb_traffic: ``files`` (FTP model 3) or ``constant`` rate.
        mmtc_traffic: ``poisson`` or ``beta`` (bursts, TR 37.868).
        interlock: a cell goes off only while a neighbour is on; of neighbours that all ask for it the busiest stays on,
            as deeply asleep as a cell can be that is. False lets whole networks go dark.
        events: outages, new hardware, crowds: see :func:`~rlaas.scenarios.network5g.engine.events.compile_events`.
        delays: record delay histograms, for :meth:`VectorNetwork5G.delays`.
        fidelity: ``fluid`` (closed form within a step) or ``slot`` (every slot with fading, scheduler and HARQ).

    Raises:
        ConfigurationError: an unknown or impossible option value, naming what is allowed.
    """

    name: ClassVar[str] = "network5g"
    algorithm: ClassVar[str] = "sac"
    experiment_design: ClassVar[str] = "switchback"
    protocols: ClassVar[Mapping[str, EvaluationProtocol]] = {
        "short": EvaluationProtocol(name="short", seeds=8, warmup=20, steps=100, replicas=4),
        "full": EvaluationProtocol(name="full", seeds=30, warmup=100, steps=600, replicas=8),
    }

    training_defaults: ClassVar[Mapping[str, Any]] = {
        # A simulated decision costs next to nothing: nine million of them for PPO take some 150 s of one core.
        "algorithm": "ppo",
        "steps": 9_000_000,
        "num_envs": 64,
        # From the frozen default the policy finds no way to some cells that sleep while others carry the load.
        "start": "tuned_static",
        "learning_rate": 0.001,
        # A cell that serves nobody costs hundreds a step; a lower bound would hide that.
        "reward_clip": 1000.0,
        # A backlog is paid for over some twenty steps; a shorter horizon starves the slow slice.
        "gamma": 0.95,
        # Fresh decisions rather than further passes over old ones, which they outnumber where they cost so little.
        # Cells that sleep by chance now and then are served as cells that never do, unless chance ends in training.
        "ppo": {
            "rollout_length": 32,
            "minibatch": 1024,
            "epochs": 3,
            "entropy": 0.0,
            "final_noise": 0.02,
            "noise_from": 0.4,  # without chance from the start some trainings find nothing
        },
    }

    def __init__(
        self,
        *,
        size: str = "small",
        load: str = "mid",
        control: str = "cell",
        episode_steps: int = 700,
        hour: float | None = None,
        hours_per_s: float = 0.0,
        cells: int | None = None,
        sectors: int | None = None,
        users: int | None = None,
        sites: str | Path | None = None,
        propagation: str | None = None,
        indoor: float | None = None,
        inter_site_m: float | None = None,
        carrier_ghz: float | None = None,
        bandwidth_mhz: float | None = None,
        subcarrier_khz: int | None = None,
        urllc_subcarrier_khz: int | None = None,
        modulation: str | None = None,
        layers: int | None = None,
        columns: int | None = None,
        mobility: str = "waypoint",
        traces: str | Path | Sequence[Any] | None = None,
        power_model: str | Sequence[str] | None = None,
        embb_traffic: str = "files",
        mmtc_traffic: str = "poisson",
        interlock: bool = True,
        events: Sequence[Mapping[str, Any]] = (),
        delays: bool = False,
        fidelity: str = "fluid",
    ) -> None:
        ref = reference()
        self.options = {
            name: value for name, value in locals().items() if name not in ("self", "ref") and not name.startswith("__")
        }
        check_choice(size, SIZES, field="size")
        check_choice(load, LOADS, field="load")
        check_choice(control, CONTROLS, field="control")
        check_choice(mobility, MOBILITY, field="mobility")
        check_choice(embb_traffic, ("files", "constant"), field="embb_traffic")
        check_choice(mmtc_traffic, ("poisson", "beta"), field="mmtc_traffic")
        check_choice(fidelity, ("fluid", "slot"), field="fidelity")
        check_flag("delays", delays)
        check_flag("interlock", interlock)
        check_whole("episode_steps", episode_steps, 1, MOST_STEPS)
        if hour is not None:
            check_number("hour", hour, 0.0, 24.0, open_end=True)
        check_number("hours_per_s", hours_per_s, 0.0, 24.0)
        radio = changed_radio(
            ref.radio,
            propagation=propagation,
            indoor_share=indoor,
            inter_site_m=inter_site_m,
            carrier_ghz=carrier_ghz,
            bandwidth_mhz=bandwidth_mhz,
            subcarrier_khz=subcarrier_khz,
            modulation=modulation,
            layers=layers,
            columns=columns,
        )
        check_carrier(radio, urllc_subcarrier_khz)
        shape = choose_layout(
            size,
            cells=cells,
            sectors=sectors,
            sites=sites,
            inter_site_m=inter_site_m,
            usual_inter_site_m=ref.radio.inter_site_m,
        )
        self._reference = ref
        own_shape = cells is None and sites is None
        usual = USERS[size] if own_shape else 10 * shape.cells
        self._users = choose_users(users, usual, ref.traffic)
        nearest = size if own_shape else "large" if shape.azimuth_deg is not None else "medium"
        self._regime = regime_for(ref, nearest, load, sum(self._users) / shape.cells)
        self._layout = shape
        self.objectives = make_objectives(self._regime)
        self.modes = {
            name: Mode(name=name, preference=Preference.of(self.objectives, weights), rules=RULES, description=text)
            for name, (weights, text) in MODES.items()
        }
        self.regime = f"{nearest}/{load}"
        self.tunables = make_tunables(ref, shape.colour, central=control == "central")
        self.baselines = make_baselines(ref, shape.colour, central=control == "central")
        self.baselines |= tuned_baselines(__package__, self.regime, self.tunables)
        self.default_baseline = DEFAULT
        self.primary_mode = "normal"
        self.part_names = PART_NAMES
        rows = shape.cells if control == "central" else 1
        names = [OBSERVATION_NAMES] if rows == 1 else [[f"cell{i}_{n}" for n in OBSERVATION_NAMES] for i in range(rows)]
        self.observation_names = tuple(name for cell in names for name in cell)
        self.single_observation_space = tiled(observation_space(), rows)
        self.single_action_space = tiled(action_space(), rows)
        self.targets = {
            "latency": Target(objective="latency", relative=-0.30),
            "throughput": Target(objective="throughput", relative=0.40),
            "energy": Target(objective="energy", relative=-0.30),
            "satisfaction": Target(objective="satisfaction", absolute=0.95),
        }
        self.guard_shares = {"served": 0.99}
        self.reference_hash = ref.hash
        self._network = Network(
            layout=shape,
            users=self._users,
            regime=self._regime,
            objectives=self.objectives,
            reference=ref,
            radio=radio,
            urllc_subcarrier_khz=urllc_subcarrier_khz,
            hour=hour,
            hours_per_s=hours_per_s,
            episode_steps=episode_steps,
            mobility=mobility,
            traces=choose_traces(traces, mobility),
            power_models=choose_power_models(power_model, ref.energy.model, shape.cells),
            events=choose_events(events),
            embb_traffic=embb_traffic,
            mmtc_traffic=mmtc_traffic,
            interlock=bool(interlock),
            histogram=bool(delays),
            slots=fidelity == "slot",
        )
        # Whatever cannot be built is refused here rather than when the first environment starts.
        build(self._network)

    @property
    def reference(self) -> Reference:
        """The frozen constants, default and ranges."""
        return self._reference

    @property
    def cells(self) -> int:
        """Cells of one network: rows per environment."""
        return self._layout.cells

    @property
    def users(self) -> tuple[int, int, int]:
        """eMBB, URLLC and mMTC users of one network."""
        return self._users

    @property
    def network(self) -> Network:
        """What its environments simulate."""
        return self._network

    def vector_env(
        self,
        num_envs: int,
        seed: int | Sequence[int] | None = 0,
        *,
        copy: bool = True,
        threads: int | None = None,
    ) -> VectorNetwork5G:
        """``num_envs`` networks: ``num_envs * cells`` rows, or ``num_envs`` with central control.

        Args:
            num_envs: how many networks.
            seed: spread over them, or one each.
            copy: return fresh arrays from every step; False overwrites the last step's and allocates nothing.
            threads: to use; None for one per core.

        Raises:
            InvalidInputError: no environment or more than there is memory for, or seeds that are none.
        """
        number = check_num_envs(num_envs)
        try:
            if number >= MANY:
                # Memory is handed out before it is there: better an error now than the end of the process later.
                needed = number * VectorNetwork5G(self, self._network, 1, 0, threads=1).bytes_per_environment
                if needed > available_bytes():
                    raise MemoryError
            return VectorNetwork5G(self, self._network, number, seed, copy=copy, threads=threads)
        except MemoryError as problem:
            raise InvalidInputError(
                f"num_envs = {number} needs more memory than there is; take fewer", field="num_envs"
            ) from problem

    def tensor_env(self, num_envs: int, *, device: str, seed: int | Sequence[int] = 0) -> TensorEnv:
        """``num_envs`` networks of the torch twin in float32; unchecked actions: settings are clipped.

        Raises:
            ConfigurationError: central control, recorded delays or slots, which the twin lacks; or no such device.
            InvalidInputError: no environment, or seeds that are none.
        """
        from rlaas.scenarios.network5g.twin import TorchNetwork5G

        if self.options["control"] == "central":
            raise ConfigurationError(
                "device: networks of tensors are controlled by cell; load the scenario with control=cell, or leave "
                "device out",
                field="device",
            )
        return TorchNetwork5G.in_float32(self._network, check_num_envs(num_envs), device=device, seed=seed)

    def objective_values(
        self, numerators: NDArray[np.floating[Any]], denominators: NDArray[np.floating[Any]]
    ) -> NDArray[np.float64]:
        """Objectives [..., 4] from summed parts [..., n_parts]; NaN where a denominator is 0."""
        return np.asarray(objective_values(numerators, denominators, self._regime), dtype=np.float64)

    def step_rewards(
        self, numerators: NDArray[np.floating[Any]], denominators: NDArray[np.floating[Any]]
    ) -> NDArray[np.float64]:
        """Rewards [n, 4] of single cells' steps: as the environment's, but for the share of the network's mean."""
        n, d = (np.asarray(parts)[:, None, :] for parts in (numerators, denominators))
        return step_rewards(n, d, self._regime, self.objectives)[:, 0]

    def guards(
        self, numerators: NDArray[np.floating[Any]], denominators: NDArray[np.floating[Any]]
    ) -> Mapping[str, NDArray[np.floating[Any]]]:
        """``served``: Mbit served [...], to be at least 99 % of the default's on the same seeds."""
        return {"served": np.asarray(numerators)[..., SERVED]}

    def calibration(self, data_dir: Path | None = None, *, quick: bool = False) -> Report:
        """The simulator beside measured base stations and drive tests, whatever this network's own options."""
        from rlaas.scenarios.network5g.measured.report import calibration_report

        return calibration_report(data_dir, quick=quick)

    def capabilities(self, *, quick: bool = False) -> Sequence[Section]:
        """Whether 1 ms for URLLC and 1 Gbit/s per cell can be had, in the configurations that these belong to."""
        from rlaas.scenarios.network5g.capabilities import radio_figures

        return radio_figures(quick=quick)

    def picture(self, env: VectorScenarioEnv, environment: int = 0) -> NDArray[np.uint8]:
        """Map of a network: cells with load and beams, users with the cells that serve them [height, width, 3].

        Raises:
            InvalidInputError: an environment of another scenario, or none of that number.
        """
        if not isinstance(env, VectorNetwork5G):
            raise InvalidInputError(f"expected an environment of {self.name}, got {type(env).__name__}", field="env")
        return draw_network(env, check_environment(environment, env.environments))
