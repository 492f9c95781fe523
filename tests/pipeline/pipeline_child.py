"""A pipeline in a process of its own: notes on stderr, the report on stdout.

``python pipeline_child.py HOME HOLD RAY``, the last being a folder with a short name for Ray's sockets.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline_toys import pipeline_config

from rlaas.pipeline import Observer, run_pipeline
from rlaas.settings import load_settings


class Notes(Observer):
    def started(self, stage: str, reason: str) -> None:
        print(f"{stage}: {reason}", file=sys.stderr, flush=True)

    def noted(self, stage: str, text: str) -> None:
        print(f"{stage} {text}", file=sys.stderr, flush=True)


@contextmanager
def small_ray(folder: str) -> Iterator[None]:
    import ray

    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 * 1024 * 1024,
        _temp_dir=tempfile.mkdtemp(dir=folder),
    )
    yield
    ray.shutdown()


def main(home: str, hold: str, folder: str) -> None:
    training = {"scenario": "pipeline_toys:Held", "options": {"called": "held", "hold": hold}}
    config = pipeline_config("held", training, data={"tables": ["silver.transitions"]})
    settings = load_settings(home=Path(home))
    report = run_pipeline(config, settings, observer=Notes(), start_ray=lambda: small_ray(folder))
    print(json.dumps(report.to_dict()))


if __name__ == "__main__":
    main(*sys.argv[1:])
