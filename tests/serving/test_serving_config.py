from __future__ import annotations

from pathlib import Path

import pytest
from support.serving_kit import deployment

from rlaas.errors import ConfigurationError, InvalidInputError
from rlaas.serving import ServingConfig, Variant, load_serving_config


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("gateway: {num_replica: 2}", "gateway.num_replica", "allowed: body_timeout_s, max_body_bytes"),
        ("gatewy: {}", "gatewy", "allowed: committer, control, gateway, scaling, settings"),
        ("gateway: {num_replicas: 0}", "gateway.num_replicas", "must be >= 1, got 0"),
        ("settings: {hme: x}", "settings.hme", "allowed: artifact_url"),
        ("control: {poll_s: .nan}", "control.poll_s", "finite"),
        ("- 1", "config", "expected a mapping"),
        ("a: [", "config", "not YAML"),
    ],
)
def test_errors_name_file_key_and_what_is_allowed(tmp_path: Path, text: str, field: str, message: str) -> None:
    path = tmp_path / "serving.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_serving_config(path)
    assert caught.value.field == field
    assert str(path) in caught.value.message
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml: cannot be read"):
        load_serving_config(tmp_path / "none.yaml")


def test_arguments_beat_the_file_and_the_file_beats_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAAS_HOME", str(tmp_path / "env"))
    monkeypatch.setenv("RLAAS_LAKE_URL", "s3://env")
    path = tmp_path / "serving.yaml"
    path.write_text(f"settings: {{home: {tmp_path / 'file'}}}")
    config = load_serving_config(path)
    assert config.resolve_settings().home == tmp_path / "file"
    assert config.resolve_settings(home=tmp_path / "arg").home == tmp_path / "arg"
    assert config.resolve_settings(home=None).lake_url == "s3://env"
    path.write_text("")
    assert load_serving_config(path) == ServingConfig() == load_serving_config()


def test_the_settings_of_a_tenant_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="RLAAS_TENANT"):
        ServingConfig().resolve_settings(tenant="../x")


def test_weights_are_scaled_and_checked() -> None:
    record = deployment("p", [{"name": "a", "version": 1, "weight": 3}, {"name": "b", "version": 2, "weight": 1}])
    assert record.weights() == {"a": 0.75, "b": 0.25}
    assert record.etag == '"dep-p.1"'
    tiny = deployment(
        "p", [{"name": "a", "version": 1, "weight": 5e-324}, {"name": "b", "version": 2, "weight": 5e-324}]
    )
    assert tiny.weights() == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    ("variants", "experiment", "message"),
    [
        ([{"name": "a", "version": 1, "weight": 0}], None, "sum"),
        ([{"name": "a", "version": 1, "weight": -1}], None, "greater than or equal to 0"),
        ([{"name": "a", "version": True, "weight": 1}], None, "integer"),
        ([{"name": "a/b", "version": 1, "weight": 1}], None, "plain name"),
        ([{"name": "a", "version": 1, "weight": 1}] * 2, None, "repeat a name"),
        ([{"name": "a", "version": 1, "weight": 1}], {"name": "e", "design": "switchback", "salt": "s"}, "block_steps"),
        ([{"name": "a", "version": 1, "weight": 1}], {"name": "e", "design": "coin", "salt": "s"}, "user"),
    ],
)
def test_impossible_deployments_are_refused(
    variants: list[dict[str, object]], experiment: object, message: str
) -> None:
    with pytest.raises((ValueError, InvalidInputError), match=message):
        deployment("p", variants, experiment=experiment)


def test_documents_are_frozen_and_strict() -> None:
    with pytest.raises(ValueError, match="colour"):
        Variant.model_validate({"name": "a", "version": 1, "weight": 1, "colour": "red"})
