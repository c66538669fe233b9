"""`fabric imports`: list the dropped files, show each file's history, and retry or release a file that is stuck."""

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fabric_assets.cli.console.each_tenant import get_console, run_for_each
from fabric_assets.cli.console.options import All, AsJson, Tenants
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import ConfigurationError, FabricError
from fabric_assets.settings import Settings

if TYPE_CHECKING:
    from fabric_assets.loading.dropped_files.overview import DroppedFile, FileVersion

app = typer.Typer(name="imports", help="The files that people have dropped.", no_args_is_help=True)


class Status(StrEnum):
    """The states of a file, in their usual order."""

    WAITING = "waiting"
    FOUND = "found"
    LOADING = "loading"
    LOADED = "loaded"
    REPLACED = "replaced"
    DUPLICATE = "duplicate"
    QUARANTINED = "quarantined"
    FAILED = "failed"
    GONE = "gone"


Tenant = Annotated[str, typer.Argument(help="Name of a tenant.", show_default=False)]
Files = Annotated[list[str], typer.Argument(help="Names of files as they were dropped, or their paths in quarantine/.", show_default=False)]
Source = Annotated[str | None, typer.Option("--source", help="Only files of this source.", show_default=False)]
Stream = Annotated[str | None, typer.Option("--stream", help="Only files of this stream.", show_default=False)]


@app.command("list")
def list_(
    tenants: Tenants = None,
    all_: All = False,
    source: Source = None,
    stream: Stream = None,
    status: Annotated[Status | None, typer.Option(help="Only files of this status.", show_default=False)] = None,
    json_: AsJson = False,
) -> None:
    """List the dropped files with their status, also those that are in the inboxes now."""
    from fabric_assets.loading.dropped_files.overview import list_files
    from fabric_assets.visible import show_name

    files: list[tuple[str, DroppedFile]] = []
    unseen = list[str]()

    def collect(config: TenantConfig, settings: Settings) -> None:
        found = list_files(config, settings, source=source, stream=stream, report=unseen.append)
        files.extend((config.tenant, file) for file in found if status in (None, file.status))

    code = run_for_each(tenants, all_, source, stream, collect)
    for message in unseen:
        typer.echo(f"error: {message}", err=True)
    if json_:
        typer.echo(json.dumps([{"tenant": tenant, **_to_json(file)} for tenant, file in files], indent=2))
    elif files:
        table = Table("tenant", "stream", "file", "status", "read", "loaded", "rejected", "reason", "modified", box=None, pad_edge=False)
        for tenant, file in files:
            numbers = [str(number) for number in _get_numbers(file) or ()] or ["", "", ""]
            table.add_row(tenant, f"{file.source}.{file.stream}", show_name(file.name), file.status, *numbers, _explain(file), _spell(file.facts.modified_at))
        get_console().print(table)
    elif not code and not unseen:
        typer.echo("no files", err=True)
    raise typer.Exit(max(code, int(bool(unseen))))


@app.command("show")
def show(
    tenant: Tenant,
    file: Annotated[str, typer.Argument(help="Its name, or its path in quarantine/.")],
    source: Source = None,
    stream: Stream = None,
    json_: AsJson = False,
) -> None:
    """Show all that is known about one file, in all versions, and what to do next."""
    from fabric_assets.loading.dropped_files.overview import find_versions

    versions: list[FileVersion] = []
    code = run_for_each(
        [tenant], False, source, stream, lambda config, settings: versions.extend(find_versions(config, settings, file, source=source, stream=stream))
    )
    if not versions and not code:
        raise ConfigurationError(f"tenant {tenant}: no file {file} is known", remedy=f"see them with: fabric imports list {tenant}")
    if json_:
        typer.echo(json.dumps([_version_to_json(tenant, version) for version in versions], indent=2))
    else:
        typer.echo("\n\n".join("\n".join(_describe_version(tenant, version)) for version in versions))
    raise typer.Exit(code)


@app.command("retry")
def retry(tenant: Tenant, files: Files, source: Source = None, stream: Stream = None) -> None:
    """Let the next load retry files that could not be read, without waiting and with a new count of attempts."""
    from fabric_assets.loading.dropped_files.release import retry as run

    _change(tenant, files, source, stream, lambda config, settings, name: run(config, settings, name, source=source, stream=stream, report=_report))


@app.command("release")
def release(tenant: Tenant, files: Files, source: Source = None, stream: Stream = None) -> None:
    """Move quarantined files back to the inbox, where the next load checks them again."""
    from fabric_assets.loading.dropped_files.release import release as run

    _change(tenant, files, source, stream, lambda config, settings, name: run(config, settings, name, source=source, stream=stream, report=_report))


def _change(tenant: str, names: list[str], source: str | None, stream: str | None, change: Callable[[TenantConfig, Settings, str], str]) -> None:
    """Change one file after the other; a file that cannot be changed does not stop the others."""
    failed = list[FabricError]()

    def work(config: TenantConfig, settings: Settings) -> None:
        for name in names:
            try:
                typer.echo(change(config, settings, name))
            except FabricError as error:
                failed.append(error)
                typer.echo(f"error: {error}", err=True)

    code = run_for_each([tenant], False, source, stream, work)
    raise typer.Exit(max(code, int(bool(failed))))


def _report(message: str) -> None:
    typer.echo(message, err=True)


# --- in words


def _describe_version(tenant: str, version: "FileVersion") -> Iterator[str]:
    file, facts = version.file, version.file.facts
    yield f"{file.name} ({file.source}.{file.stream}): {file.status}"
    yield f"  {facts.size:,} bytes, last written {_spell(facts.modified_at)}" + (f", SHA-256 {facts.sha256}" if facts.sha256 else "")
    yield f"  lies in: {', '.join(version.paths) or 'neither the inbox nor archive/ nor quarantine/'}"
    if file.updated_at:
        yield f"  {file.status} since {_spell(file.updated_at)}"
    if numbers := _get_numbers(file):
        yield "  rows: {} read, {} loaded, {} rejected".format(*numbers)
    if explained := _explain(file):
        yield f"  {explained}"
    for row in version.rejects:
        yield f"  row {row.row_number}: {row.reason}: {row.message}"
    if advice := _advise(tenant, file):
        yield f"  next: {advice}"


def _advise(tenant: str, file: "DroppedFile") -> str:
    from fabric_assets.rows.imported_file import CORRECTED

    chosen, name = f"--source {file.source} --stream {file.stream}", shlex.quote(file.name)
    if file.status == "loaded":
        ways = f"fabric rejects export {tenant} {chosen} --out corrected.csv; correct it; fabric rejects replay {tenant} --file corrected.csv"
        return ways if file.facts.rows_rejected else ""
    if file.status == "quarantined" and file.facts.reason == CORRECTED:
        # No --stream: an export may hold the rows of several.
        return f"fabric rejects replay {tenant} --source {file.source} --file {shlex.quote(file.quarantine_path or file.name)}"
    return {
        "waiting": "wait until it is complete",
        "found": f"fabric run {tenant}",
        "gone": "put it back into the inbox, if its rows are wanted",
        "failed": f"wait for the next attempt, or: fabric imports retry {tenant} {name}",
        "quarantined": f"correct the file and drop it again; or correct the YAML, then: fabric imports release {tenant} {name}",
    }.get(file.status, "")


def _get_numbers(file: "DroppedFile") -> tuple[int, int, int] | None:
    facts = file.facts
    return (facts.rows_read, facts.rows_loaded, facts.rows_rejected) if file.status in ("loaded", "replaced") else None


def _explain(file: "DroppedFile") -> str:
    facts = file.facts
    tries = f" ({facts.attempts} attempts; the next after {_spell(facts.next_attempt_at)})" if file.status == "failed" and facts.next_attempt_at else ""
    message, _, remedy = (facts.message or "").partition("\n  remedy: ")  # as FabricError writes it
    words = [" ".join(part.split()) for part in (message, remedy) if part]
    return ": ".join(part for part in (facts.reason, "; remedy: ".join(words)) if part) + tries


def _spell(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def _to_json(file: "DroppedFile") -> dict[str, Any]:
    facts = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in asdict(file.facts).items()}
    updated = file.updated_at.isoformat() if file.updated_at else None
    return {"source": file.source, "stream": file.stream, **facts, "status": file.status, "place": file.quarantine_path, "updated_at": updated}


def _version_to_json(tenant: str, version: "FileVersion") -> dict[str, Any]:
    rejects = [{**asdict(row), "rejected_at": row.rejected_at.isoformat()} for row in version.rejects]
    return {"tenant": tenant, **_to_json(version.file), "lies_in": list(version.paths), "rejects": rejects, "next": _advise(tenant, version.file)}
