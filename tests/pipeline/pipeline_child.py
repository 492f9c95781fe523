"""A pipeline in a process of its own: ``python pipeline_child.py HOME HOLD``; notes on stderr, the report on stdout."""

from __future__ import annotations

import json
import shutil
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
def small_ray() -> Iterator[None]:
    import ray

    folder = tempfile.mkdtemp(prefix="rc", dir="/tmp")
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 * 1024 * 1024,
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def main(home: str, hold: str) -> None:
    training = {"scenario": "pipeline_toys:Held", "options": {"called": "held", "hold": hold}}
    config = pipeline_config("held", training, data={"tables": ["silver.transitions"]})
    report = run_pipeline(config, load_settings(home=Path(home)), observer=Notes(), start_ray=small_ray)
    print(json.dumps(report.to_dict()))


if __name__ == "__main__":
    main(*sys.argv[1:])
