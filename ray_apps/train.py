"""Training as a Ray job: ``ray job submit --working-dir . -- python -m ray_apps.train --config FILE``."""

from rlaas.cli.jobs import train_job

if __name__ == "__main__":
    train_job()
