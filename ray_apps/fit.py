"""A fit from the lake as a Ray job: ``ray job submit --working-dir . -- python -m ray_apps.fit --config FILE``."""

from rlaas.cli.jobs import fit_job

if __name__ == "__main__":
    fit_job()
