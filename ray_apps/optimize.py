"""A search as a Ray job: ``ray job submit --working-dir . -- python -m ray_apps.optimize --config FILE``."""

from rlaas.cli.jobs import optimize_job

if __name__ == "__main__":
    optimize_job()
