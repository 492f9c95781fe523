"""``rlaas serve``: the platform, until it is told to stop."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from rlaas.cli.output import JsonOption, print_json
from rlaas.client import Client
from rlaas.errors import InvalidInputError, RetryableError
from rlaas.interrupts import check_interrupt

__all__ = ["serve"]

READY_PATIENCE_S = 60.0


def serve(
    port: Annotated[int, typer.Option(help="HTTP port.", min=1, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    replicas: Annotated[
        int | None, typer.Option(help="Gateway replicas; default: the config's.", min=1, max=1000)
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file; see configs/serving/.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray to run on; default: a local one of its own.")] = None,
    fast_lane: Annotated[
        bool, typer.Option(help="Answer the hot path in front of Serve's own; only for a Ray that this starts.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Serve the registry's champions over HTTP until Ctrl-C or SIGTERM."""
    if not host:
        raise InvalidInputError(
            "--host is empty; allowed: an address of this machine, or 0.0.0.0 for all", field="host"
        )
    from rlaas.control import check_port
    from rlaas.pipeline import local_ray
    from rlaas.serving import load_serving_config

    loaded = load_serving_config(config)
    settings = loaded.resolve_settings()
    check_port(host, port)
    with local_ray(address, fast_lane=fast_lane) as urls:
        # Only now: Serve reads its variables when it is imported.
        from ray.serve.exceptions import RayServeException

        from rlaas.control import start_platform, stop_platform

        # Its import has set the level again. It would tell of options that are not applied, which are the same ones.
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        try:
            base_url = start_platform(loaded, settings, port=port, host=host, replicas=replicas)
            names = _served(base_url)
            if as_json:
                print_json({"url": base_url, "policies": names, **urls})
            else:
                what = ", ".join(names) or "no policy yet (promote one: rlaas policies promote NAME VERSION)"
                typer.echo(f"rlaas is ready at {base_url}: {what}")
            # A wait that signals interrupt; the process has nothing to do but stay.
            threading.Event().wait()
        except KeyboardInterrupt:
            typer.echo("stopping", err=True)
        finally:
            with suppress(RayServeException):  # refused before there was a Serve: nothing to stop, and it says why
                stop_platform()


def _await_ready(client: Client) -> None:
    """Wait until a Gateway has loaded its policies; the listener opens before."""
    deadline = time.monotonic() + READY_PATIENCE_S
    while True:
        check_interrupt()
        try:
            client.ready()
        except RetryableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _served(base_url: str) -> list[str]:
    with Client(base_url) as client:
        live = client.deployments()["items"]
        if live:
            _await_ready(client)
        return sorted(f"{d['policy']}:{'+'.join(str(v['version']) for v in d['variants'])}" for d in live)
