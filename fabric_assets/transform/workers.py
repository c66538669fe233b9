"""dbt processes that stand ready: each serves one build and is gone, so no two tenants ever share one."""

from collections.abc import Iterator

from fabric_assets.settings import Settings
from fabric_assets.transform.build import BuildRequest, DbtWorker, ModelResult, TestResult


class DbtWorkers:
    """Keeps one worker warm; a run uses it from one thread.

    Args:
        adapter: the kind of warehouse to get ready for.
    """

    def __init__(self, settings: Settings, *, adapter: str) -> None:
        self._settings = settings
        self._adapter = adapter
        self._spare: DbtWorker | None = None

    def warm(self) -> None:
        """Start the next worker, so that its imports run beside whatever comes first."""
        if self._spare is None:
            self._spare = DbtWorker.start(self._settings, adapter=self._adapter)

    def build(self, request: BuildRequest) -> Iterator[ModelResult | TestResult]:
        """Build in the warm worker, or in a new one."""
        self.warm()
        worker, self._spare = self._spare, None
        assert worker is not None
        try:
            yield from worker.build(request)
        finally:
            worker.close()

    def close(self) -> None:
        """End the worker that nobody used."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None
