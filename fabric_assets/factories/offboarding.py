"""An offboarding request -> the tenant deleted, a certificate of what was deleted, and a proof that nothing is left (ADR 0014).

First a mark refuses new work, and running work is ended. Then all is counted, exported and read back; only after that is anything deleted. The secrets go
last, once everything else is proved to be gone: until then each call needs the logins in them to look again. Every deletion looks for what exists, so a
call after a kill continues.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from fabric_assets import naming
from fabric_assets.drivers.kinds import get_kind
from fabric_assets.errors import ConfigurationError, DestinationError, LeaseHeld, SecretError
from fabric_assets.factories.instance.records import files, pausing, proof, removal, sharing
from fabric_assets.factories.instance.records.databases import get_shard_folder, list_shards, open_databases
from fabric_assets.factories.instance.records.runs import TenantRuns, find_runs, find_unfinished
from fabric_assets.factories.instance.run_marks import end_dead_runs
from fabric_assets.offboarding.certificate import build_certificate, write_certificate
from fabric_assets.offboarding.export import check_export, export_tables, prepare_export
from fabric_assets.offboarding.journal import PROVED, Journal, get_now, open_journal, read_journal
from fabric_assets.offboarding.local_data import delete_paths, find_local_data, is_anothers
from fabric_assets.offboarding.search import get_outermost, search_folders
from fabric_assets.offboarding.survey import OffboardingRequest, delete_destination, describe_left_paths, find_left_at_destination, is_empty, survey
from fabric_assets.private_files import FileLock, make_private_folder
from fabric_assets.security.token_files import locked
from fabric_assets.warehouse.lease import load_lease, warehouse_lease

# The kinds of files that are deleted after all others.
_LAST = ("secrets", "locks")
# Longest wait for runs to end.
WAIT_SECONDS = 300.0
Report = Callable[[str], None]


class Offboarding:
    """The offboarding of one tenant, with one Dagster instance.

    Args:
        report: is called with a line for each step.
    """

    def __init__(self, request: OffboardingRequest, instance: dg.DagsterInstance, report: Report, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._request, self._instance, self._report, self._wait = request, instance, report, wait_seconds
        self._tenant, self._data_dir, self._publish_dir = request.tenant, request.settings.data_dir, request.settings.publish_dir
        self._databases = open_databases(instance)

    def preview(self) -> dict[str, Any]:
        """Count what would be deleted, and delete nothing."""
        return self._survey(self._find_runs())

    def run(self, export: Path | None) -> dict[str, Any]:
        """Offboard the tenant, or continue an interrupted offboarding.

        Returns:
            the certificate. If its proof names something that is left, it is not written, and the next call tries again.

        Raises:
            ConfigurationError: the tenant does not exist, or the call asks for another export than the first call.
            LeaseHeld: a run does not end, or another call is offboarding.
        """
        with self._alone():
            journal = self._begin(export)
            runs = self._pause(journal)
            if "survey" not in journal.steps:
                self._report("counting what there is")
                journal.finish("survey", {**self._survey(runs), "runs": list(runs.own)})
            self._export(journal)
            self._delete_at_destination(journal)
            own = sorted({*journal.steps["survey"]["runs"], *runs.own})
            self._delete_here(journal, own)
            self._report("searching everything again")
            left = self._find_left(own)
            if not left:
                journal.finish(PROVED, {"at": get_now()})
                left = self._delete_secrets(own)
            certificate = build_certificate(self._tenant, journal, left)
            if not left:
                write_certificate(certificate, self._data_dir)
                journal.close()
            return certificate

    # --- before anything is deleted

    @contextmanager
    def _alone(self) -> Iterator[None]:
        folder = make_private_folder(naming.offboarding_journal(self._data_dir, self._tenant).parent)
        try:
            lock = FileLock(folder / ".lock", wait=False)
        except BlockingIOError:
            raise LeaseHeld("another call is offboarding a tenant", remedy="wait for it to end, then try again") from None
        with lock:
            yield

    def _begin(self, export: Path | None) -> Journal:
        wanted = str(export.resolve()) if export else None
        file = naming.offboarding_journal(self._data_dir, self._tenant)
        journal = read_journal(file)
        if journal is None:
            if self._request.config is None and is_empty(self.preview()["found"]):
                raise ConfigurationError(f"there is no tenant {self._tenant}, and nothing of one anywhere", remedy="see `fabric list tenants`")
            journal = open_journal(self._tenant, self._data_dir, {"export": wanted})
            self._report(f"begun: {self._tenant} takes no work any more")
            return journal
        if wanted and wanted != journal.request["export"]:
            begun = f"an export to {journal.request['export']}" if journal.request["export"] else "no export"
            raise ConfigurationError(f"the offboarding of {self._tenant} began with {begun}", remedy="call it again without --export: it goes on as it began")
        self._report(f"going on with what began {journal.begun['at']}")
        return journal

    def _pause(self, journal: Journal) -> TenantRuns:
        settings = self._request.settings
        pausing.stop_instigators(self._instance, self._tenant)
        end_dead_runs(self._instance, settings)
        runs = self._find_runs()
        self._refuse_shared(runs)
        pausing.end_runs(self._instance, self._databases, runs.own, settings, seconds=self._wait, report=self._report)
        # Anyone who takes a lease from now on finds the mark, so it is enough to hold each lease once.
        with warehouse_lease(self._tenant, settings, timeout_seconds=self._wait, report=self._report, offboarding=True):
            pass
        if "survey" not in journal.steps:
            self._wait_at_destination()
        pausing.close_dead_runs(self._instance, self._databases, runs.own)
        return runs

    def _wait_at_destination(self) -> None:
        """Wait for loads into a server, of any machine: they hold a lease there. Once anything is deleted, the login may be gone."""
        config = self._request.config
        if config is None or get_kind(config).has_one_writer:
            return
        for source in config.sources:
            try:
                with load_lease(config, source, self._request.settings, timeout_seconds=self._wait, report=self._report, offboarding=True):
                    pass
            except (DestinationError, SecretError) as error:
                # A login that is refused, or was never made, loads nothing.
                self._report(f"no lease is taken: {error.message}")
                return

    def _refuse_shared(self, runs: TenantRuns) -> None:
        """Refuse to go on while a run that also loads other tenants is unfinished: it is not ours to end."""
        if going := find_unfinished(self._databases, runs.shared):
            raise LeaseHeld(
                f"run {', '.join(going)} also works for other tenants, and goes on",
                remedy="wait for it to end, or end it in the UI; then call this again",
            )

    def _survey(self, runs: TenantRuns) -> dict[str, Any]:
        found = survey(self._request, runs=runs.own)
        shards = list_shards(self._instance, self._databases)
        history = removal.count_history(self._databases, shards, runs.own, self._request.matcher)
        if runs.shared:
            history["runs shared with other tenants, in which its part was deleted and its name replaced"] = len(runs.shared)
        return {**found, "found": {**found["found"], "history": history}, "searched": self._describe_searched()}

    def _export(self, journal: Journal) -> None:
        if not journal.request["export"]:
            return
        if "export" not in journal.steps:
            folder = Path(journal.request["export"]) / self._tenant
            prepare_export(folder, journal.begun)
            journal.finish("export", export_tables(self._request.destinations.warehouses, folder, self._tenant, self._report))
        elif "destination" not in journal.steps:
            check_export(journal.steps["export"])

    # --- deletions

    def _delete_at_destination(self, journal: Journal) -> None:
        self._report(f"deleting its data: {', '.join(warehouse.location for warehouse in self._request.destinations.warehouses) or 'no warehouse'}")
        delete_destination(self._request)
        journal.finish("destination", {"at": get_now()})

    def _delete_here(self, journal: Journal, own: Sequence[str]) -> None:
        paths = self._find_paths(own)
        for kind in ("warehouse", "published", "loads", "dbt", "inbox", "errors"):
            self._report(f"deleting files: {kind}")
            delete_paths(paths[kind])
        self._report("deleting its history in Dagster")
        shards = list_shards(self._instance, self._databases)
        matcher, substitute = self._request.matcher, self._get_substitute(journal)
        for run in own:
            self._instance.compute_log_manager.delete_logs(prefix=[run])
        removal.delete_history(self._databases, shards, own, matcher)
        sharing.rename_in_databases(self._databases, list_shards(self._instance, self._databases), own, matcher, substitute)
        delete_paths(path for path in list(files.find_own_files(self._instance, self._tenant, own)) if path.exists())
        captured = (file for file in files.find_captured_output(self._instance) if not self._is_ignored(file))
        sharing.rename_in_files(captured, matcher, substitute)

    def _find_left(self, own: Sequence[str]) -> list[str]:
        paths = self._find_paths(own)
        kept = {path.parent.resolve() / path.name for kind in _LAST for path in paths.pop(kind)}
        left = [*find_left_at_destination(self._request), *describe_left_paths(paths)]
        left += [f"run {run}" for run in self._find_runs().own]
        left += proof.search_databases(self._databases, self._request.matcher)
        return left + search_folders(self._get_folders(), self._request.matcher, skip=lambda path: path in kept or self._is_ignored(path))

    def _delete_secrets(self, own: Sequence[str]) -> list[str]:
        """Delete the secrets, and the locks that protect them."""
        self._report("deleting its sealed secrets")
        with locked(self._tenant, self._request.settings, offboarding=True):
            delete_paths([path for kind in _LAST for path in self._find_paths(own)[kind]])
        paths = self._find_paths(own)
        return describe_left_paths({kind: paths[kind] for kind in _LAST})

    def _find_paths(self, own: Sequence[str]) -> dict[str, list[Path]]:
        names = self._request.matcher.found_in_file
        return find_local_data(self._tenant, self._data_dir, self._request.config, own, names=names, publish_dir=self._publish_dir)

    def _get_folders(self) -> list[Path]:
        published = [self._publish_dir] if self._publish_dir else []
        folders = [self._data_dir, *published, Path(self._instance.root_directory), *files.get_folders(self._instance)]
        return [*folders, *([folder] if (folder := get_shard_folder(self._instance)) else []), *(file.parent for file in self._get_files())]

    def _get_files(self) -> Sequence[Path]:
        return [file for database in self._databases if (file := database.file)]

    def _is_ignored(self, path: Path) -> bool:
        data_dir, publish_dir = self._data_dir.resolve(), self._publish_dir.resolve() if self._publish_dir else None
        own, parsed = naming.offboarding_journal(data_dir, self._tenant).parent, data_dir / "dbt" / "prepared"
        is_others = is_anothers(path, data_dir, self._request.matcher.others, publish_dir=publish_dir)
        return is_others or own in path.parents or parsed in path.parents

    def _describe_searched(self) -> list[str]:
        warehouses = [warehouse.location for warehouse in self._request.destinations.warehouses]
        databases = [f"every table and column of Dagster's {database.name}" for database in self._databases]
        return [*warehouses, *databases, *(f"every byte below {folder}, but for other tenants' own files" for folder in get_outermost(self._get_folders()))]

    def _find_runs(self) -> TenantRuns:
        return find_runs(self._databases, self._request.matcher)

    def _get_substitute(self, journal: Journal) -> str:
        return f"offboarded_{hashlib.sha256(f'{self._tenant} {journal.begun}'.encode()).hexdigest()[:8]}"
