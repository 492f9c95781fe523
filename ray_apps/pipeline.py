"""Scenario to registered policy: ``ray job submit --working-dir . -- python -m ray_apps.pipeline --config FILE``."""

from rlaas.cli.jobs import pipeline_job

if __name__ == "__main__":
    pipeline_job()
