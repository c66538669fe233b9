"""dbt processes that are ready for builds. Each one ends after one build, so no two tenants ever share one."""

from collections.abc import Iterator

from fabric_assets.settings import Settings
from fabric_assets.transform.build import BuildRequest, DbtWorker, ModelResult, TestResult


class DbtWorkers:
    """The worker of a run that is started in advance. A run uses it from one thread.

    Args:
        adapter: the kind of warehouse to prepare for.
    """

    def __init__(self, settings: Settings, *, adapter: str) -> None:
        self._settings = settings
        self._adapter = adapter
        self._spare: DbtWorker | None = None

    def warm(self) -> None:
        """Start the next worker, so that its imports run beside the run's other work."""
        if self._spare is None:
            self._spare = DbtWorker.start(self._settings, adapter=self._adapter)

    def build(self, request: BuildRequest) -> Iterator[ModelResult | TestResult]:
        """Build in the worker that was started in advance, or in a new one."""
        self.warm()
        worker, self._spare = self._spare, None
        assert worker is not None
        try:
            yield from worker.build(request)
        finally:
            worker.close()

    def close(self) -> None:
        """End a worker that was not used."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None
