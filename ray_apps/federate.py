"""A federation as a Ray job: ``ray job submit --working-dir . -- python -m ray_apps.federate --config FILE``."""

from rlaas.cli.jobs import federate_job

if __name__ == "__main__":
    federate_job()
