"""A search as a Ray job: ``ray job submit --working-dir . -- python -m ray_apps.tune --config FILE``."""

from rlaas.cli.jobs import tune_job

if __name__ == "__main__":
    tune_job()
