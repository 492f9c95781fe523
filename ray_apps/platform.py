"""The platform as a Serve application.

serve run ray_apps.platform:build_app config=configs/serving/local.yaml
"""
# No "from __future__ import annotations" here: Serve reads the annotation of the builder at run time, and would skip
# the validation of the arguments silently if it were text.

from pydantic import BaseModel, ConfigDict, Field
from ray.serve import Application

from rlaas.control.application import build_application
from rlaas.serving.config import load_serving_config

__all__ = ["PlatformArgs", "build_app"]


class PlatformArgs(BaseModel):
    """Arguments of the application; an unknown one is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: str | None = Field(default=None, description="path of a YAML file like configs/serving/local.yaml")
    home: str | None = Field(default=None, description="folder of the embedded stores, over file and environment")


def build_app(args: PlatformArgs) -> Application:
    """Build the platform from a configuration file.

    Raises:
        ConfigurationError: the file or a setting is wrong; names the key.
    """
    config = load_serving_config(args.config)
    return build_application(config, config.resolve_settings(home=args.home))
