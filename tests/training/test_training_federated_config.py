"""A federation that cannot work is refused at once, in one line that names the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from federated_kit import PPO, federation
from pydantic import ValidationError

from rlaas.errors import ConfigurationError
from rlaas.training.federated import load_federation_config

PRIVACY: dict[str, Any] = {"clip": 1.0, "noise_multiplier": 4.0, "delta": 1e-3, "epsilon": 5.0}
PRIVATE: dict[str, Any] = {"share": "policy", "normaliser": "fixed", "privacy": PRIVACY}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sites": [{"name": "a"}, {"name": "a"}]}, "sites: two sites are named 'a'"),
        ({"sites": []}, "at least 1 item"),
        ({"sites": [{"name": "Bad Name"}]}, "pattern"),
        ({"count": 1}, "secure: needs two sites at least; set secure: null"),
        ({"secure": {"threshold": 4}}, "secure.threshold: must be 2 to 3 (the sites), not 4"),
        ({"secure": {"threshold": 1}}, "greater than or equal to 2"),
        ({"secure": {"limit": 1e15}}, "secure.limit: 1e+15 for 3 sites leaves no precision"),
        ({"min_sites": 4}, "min_sites: 4 exceeds the 3 sites"),
        ({"min_sites": 2, "secure": {"threshold": 3}}, "min_sites: 2 is below secure.threshold 3"),
        ({"observation_ranges": {"share": (1.0, 0.0)}}, "observation_ranges.share: the first number must be below"),
        ({"method": "fedsgd"}, "'fedavg' or 'fedprox'"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
        ({"training": PPO | {"device": "cpu"}}, "training.device: a federation's sites train on CPUs"),
        (PRIVATE | {"secure": None}, "privacy: needs secure aggregation"),
        (PRIVATE | {"share": "all"}, "share: must be policy with privacy"),
        (PRIVATE | {"normaliser": "shared"}, "normaliser: must be fixed with privacy"),
        (
            PRIVATE | {"privacy": PRIVACY | {"colluding": 2}},
            "privacy.colluding: 2 of 2 sites (min_sites) leaves nobody",
        ),
        (PRIVATE | {"privacy": PRIVACY | {"epsilon": 0.5}}, "privacy.epsilon: 0.5 does not pay for one round"),
        (PRIVATE | {"privacy": PRIVACY | {"delta": 1.0}}, "less than 1"),
    ],
)
def test_impossible_federations_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises((ConfigurationError, ValidationError)) as caught:
        federation(**changes)
    assert expected in str(caught.value)


def test_a_file_with_an_error_is_named_with_its_field(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("name: x\ntraining: {scenario: recsys}\nsites: [{name: a}]\nrounds: 1\ndecisions: 1\n")
    with pytest.raises(ConfigurationError, match=r"f\.yaml: secure: needs two sites") as caught:
        load_federation_config(path)
    assert caught.value.field == "secure"


def test_defaults_are_majorities() -> None:
    assert [federation(count=n).threshold for n in (2, 3, 4, 5)] == [2, 2, 3, 3]
    assert federation(count=5).fewest_sites == 3
    assert federation(count=5, secure=None).fewest_sites == 3
    assert federation(count=1, secure=None).fewest_sites == 1


def test_what_a_site_trains() -> None:
    config = federation(
        count=3, rounds=7, decisions=100, training={"scenario": "training_toys:Toy", "options": {"rows": 2}}
    )
    config = config.model_copy(
        update={"sites": (config.sites[0], config.sites[1].model_copy(update={"seed": 9, "decisions": 300}))}
    )
    first, second = config.training_of("north"), config.training_of("centre")
    assert first.options == {"rows": 2, "length": 10}
    assert (first.seed, first.steps) == (1, 700)
    assert (second.seed, second.steps) == (9, 2_100)


def test_digests_tell_configurations_apart() -> None:
    assert federation().digest() == federation().digest()
    assert federation().digest() != federation(rounds=3).digest()
