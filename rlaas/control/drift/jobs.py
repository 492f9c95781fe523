"""Retrainings as Ray jobs on the cluster of the platform. The one file of this room that knows Ray."""

from __future__ import annotations

import shlex
from typing import Any

from rlaas.control.drift.triggers import ProcessTrigger, RetrainRequest, pipeline_file
from rlaas.errors import NotReadyError
from rlaas.settings import Settings

__all__ = ["JobTrigger"]


class JobTrigger:
    """Submits ``python -m ray_apps.pipeline --config FILE`` under the id of the request, which Ray takes once.

    A Ray without a dashboard takes no jobs; there a process is started instead.

    Args:
        settings: of the installation.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._alone = ProcessTrigger(settings)

    def request(self, wanted: RetrainRequest) -> str:
        """See :class:`~rlaas.control.drift.triggers.RetrainTrigger`.

        Raises:
            InvalidInputError: there is no such pipeline.
            NotReadyError: the dashboard does not answer.
        """
        from ray._private.worker import get_dashboard_url

        url = get_dashboard_url()
        if not url:
            return self._alone.request(wanted)
        return self._submit(f"http://{url}", wanted)

    def _submit(self, url: str, wanted: RetrainRequest) -> str:
        from ray.job_submission import JobSubmissionClient

        file = pipeline_file(self._settings, wanted.pipeline)
        variables = {"RLAAS_HOME": str(self._settings.home), "RLAAS_TENANT": self._settings.tenant}
        for name in ("lake_url", "mlflow_url", "artifact_url", "state_url"):
            if (value := getattr(self._settings, name)) is not None:
                variables[f"RLAAS_{name.upper()}"] = value
        try:
            client: Any = JobSubmissionClient(url)
            known = {job.submission_id for job in client.list_jobs()}
            if wanted.id not in known:
                client.submit_job(
                    entrypoint=f"python -m ray_apps.pipeline --config {shlex.quote(str(file))}",
                    submission_id=wanted.id,
                    runtime_env={"env_vars": variables},
                    metadata={"policy": wanted.model, "episode": str(wanted.episode)},
                )
        except (ConnectionError, RuntimeError) as problem:
            raise NotReadyError(f"Ray does not take the job: {str(problem).splitlines()[0]}") from problem
        return f"ray job {wanted.id}"
