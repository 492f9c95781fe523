"""Starting and ending the main job: a Ray of its own, its report, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from rlaas.control import check_port
from rlaas.demo.loop import Loop
from rlaas.demo.options import DemoOptions
from rlaas.demo.plots import write_plots
from rlaas.demo.report import print_report, summarise
from rlaas.errors import ConfigurationError
from rlaas.pipeline import local_ray
from rlaas.settings import Settings

__all__ = ["run_demo"]


def run_demo(
    options: DemoOptions,
    settings: Settings,
    console: Console,
    *,
    keep_serving: bool = False,
    report: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Run the whole loop and write ``summary.json`` and the plots.

    Args:
        options: what to run.
        settings: where state lives.
        console: for progress and the report (stderr when stdout carries JSON).
        keep_serving: name the URLs that are up; they are until ``report`` returns.
        report: called with the summary while the platform is still up.

    Returns:
        The summary.

    Raises:
        RlaasError: a stage failed.
    """
    started = time.perf_counter()
    check_port("127.0.0.1", options.port)
    check_output(options.output)
    loop = Loop(options, settings, console)
    with local_ray() as ray_urls, contextlib.closing(loop):
        result = loop.run()
        plots = write_plots(result, options.output)
        summary = summarise(result, time.perf_counter() - started)
        write_summary(options.output / "summary.json", summary)
        urls = {
            **({"Serving": loop.base_url, **ray_urls} if keep_serving else {}),
            "Plots": ", ".join(str(p) for p in plots if p.suffix == ".html"),
            "Summary": str(options.output / "summary.json"),
            "MLflow": f"mlflow ui --backend-store-uri {settings.tracking_uri}",
        }
        if not keep_serving:
            urls["Serve it again"] = f"rlaas serve --port {options.port}"
        print_report(console, result, summary, urls)
        report(summary)
    return summary


def check_output(folder: Path) -> None:
    """Find out before minutes of work whether ``folder`` can be written; makes nothing.

    Raises:
        ConfigurationError: it is a file, or cannot be written.
    """
    nearest = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        message = f"--output {folder} cannot be written: {nearest} is no writable folder"
        raise ConfigurationError(message, field="output")


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary in one piece: a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n")
    partial.replace(path)
