"""`fabric rejects`: list the rows that loads have rejected, export them as CSV, and load them again."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.table import Table

from fabric_assets.cli.console.each_tenant import get_console, run_for_each
from fabric_assets.cli.console.options import All, AsJson, Tenants
from fabric_assets.cli.console.output import open_output
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from fabric_assets.loading.dropped_files.overview import DroppedFile
    from fabric_assets.loading.rejects.reader import RejectedRow
    from fabric_assets.loading.rejects.replay_file import CorrectedReplay

_SUPERSEDED = "{} of them skipped, because a newer row has the same key"

app = typer.Typer(name="rejects", help="Rows that loads have rejected.", no_args_is_help=True)

Source = Annotated[str | None, typer.Option("--source", help="Only rows of this source.", show_default=False)]
Stream = Annotated[str | None, typer.Option("--stream", help="Only rows of this stream.", show_default=False)]


@app.command("list")
def list_rows(
    tenants: Tenants = None,
    all_: All = False,
    source: Source = None,
    stream: Stream = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many rows of a tenant.")] = 100,
    json_: AsJson = False,
) -> None:
    """Show rejected rows and quarantined files, and why each was rejected."""
    from fabric_assets.drivers.destinations import open_ask
    from fabric_assets.loading.dropped_files.overview import list_quarantined
    from fabric_assets.loading.rejects.reader import open_rejects
    from fabric_assets.visible import show_name

    rows: list[tuple[TenantConfig, RejectedRow]] = []
    files: list[tuple[str, DroppedFile]] = []

    def collect(config: TenantConfig, settings: Settings) -> None:
        with open_rejects(config, settings, source=source, stream=stream) as found:
            rows.extend((config, row) for portion in found.read(limit) for row in portion)
            if len(found) > limit:
                typer.echo(f"{config.tenant}: the first {limit} of {len(found)} rejected rows; `fabric rejects export` gives all", err=True)
        with open_ask(config, settings) as ask:
            files.extend((config.tenant, file) for file in list_quarantined(ask, config, source=source, stream=stream))

    code = run_for_each(tenants, all_, source, stream, collect)
    if json_:
        shown = [{"tenant": config.tenant, **_to_json(row)} for config, row in rows] + [{"tenant": tenant, **_file_to_json(file)} for tenant, file in files]
        typer.echo(json.dumps(shown, indent=2))
    elif rows or files:
        table = Table("tenant", "stream", "origin", "row", "column", "reason", "message", "rejected at", box=None, pad_edge=False)
        for config, row in rows:
            when = f"{row.rejected_at:%Y-%m-%d %H:%M}"
            origin, column = show_name(row.origin), show_name(row.column_name or "")
            stream_ = f"{row.source}.{row.stream}{f' ({row.table_name})' if row.table_name else ''}"
            table.add_row(config.tenant, stream_, origin, _name_row(config, row), column, row.reason, row.message, when)
        for tenant, file in files:
            facts, when = file.facts, f"{file.updated_at:%Y-%m-%d %H:%M}"
            table.add_row(tenant, f"{file.source}.{file.stream}", show_name(file.name), "file", "", facts.reason, facts.message, when)
        get_console().print(table)
    elif not code:
        typer.echo("no rejected rows", err=True)
    if files and not json_:
        typer.echo(f"quarantined files: {len(files)}; more of each: fabric imports show TENANT FILE", err=True)
    raise typer.Exit(code)


@app.command("export")
def export(
    tenants: Tenants = None,
    all_: All = False,
    source: Source = None,
    stream: Stream = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: standard output.", show_default=False)] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Do not change text that a spreadsheet would run as a formula.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="With --out: print what was written as JSON.")] = False,
) -> None:
    """Write rejected rows as CSV, with the columns of their source; text that could be a formula gets an apostrophe."""
    from fabric_assets.loading.rejects.csv_export import RejectsCsv
    from fabric_assets.loading.rejects.reader import open_rejects

    if json_ and out is None:
        raise ConfigurationError("--json needs --out: standard output takes the CSV", remedy="name a file with --out")
    made, configs = RejectsCsv(is_raw=raw), list[TenantConfig]()

    def survey(config: TenantConfig, settings: Settings) -> None:
        with open_rejects(config, settings, source=source, stream=stream) as found:
            made.survey(config, found)
        configs.append(config)

    code = run_for_each(tenants, all_, source, stream, survey)
    # The file holds customers' rows, so only its owner may read it. Without the mark a spreadsheet reads it as Windows-1252.
    with open_output(out, encoding="utf-8-sig", newline="", mode=0o600) as file:
        made.write_header(file)
        for config in configs:
            with open_rejects(config, load_settings(), source=source, stream=stream) as found:
                made.write(file, config, found)
    if json_:
        typer.echo(json.dumps({"file": str(out), "rows": made.rows, "neutralised": made.neutralised, "raw": raw}))
    how = "as they are: open the file in no spreadsheet" if raw else f"{made.neutralised} cells kept from being formulas"
    typer.echo(f"{made.rows} rejected rows exported; {how}", err=True)
    raise typer.Exit(code)


@app.command("replay")
def replay(
    tenants: Tenants = None,
    all_: All = False,
    source: Source = None,
    stream: Stream = None,
    file: Annotated[str | None, typer.Option(help="Corrected rows of dropped files: a CSV that `export` has written.", show_default=False)] = None,
    json_: AsJson = False,
) -> None:
    """Reload rejected rows; with --file, corrected rows from an exported CSV."""
    from fabric_assets.loading.rejects.replay import Replayed
    from fabric_assets.loading.rejects.replay import replay as run_replay

    if file is not None:
        _replay_file(tenants, all_, source, stream, file, json_)
    results: list[tuple[str, Replayed]] = []

    def load(config: TenantConfig, settings: Settings) -> None:
        for result in run_replay(config, settings, source=source, stream=stream, report=_report):
            results.append((config.tenant, result))

    code = run_for_each(tenants, all_, source, stream, load)
    if json_:
        typer.echo(json.dumps([{"tenant": tenant, **asdict(result)} for tenant, result in results], indent=2))
    else:
        for tenant, result in results:
            typer.echo(f"{tenant} {result.source}.{result.stream}: {_describe(result)}")
    if not results and not code:
        typer.echo("no rejected rows", err=True)
    raise typer.Exit(max(code, int(any(result.error for _, result in results))))


def _replay_file(tenants: list[str] | None, all_: bool, source: str | None, stream: str | None, file: str, json_: bool) -> NoReturn:
    from fabric_assets.loading.rejects.replay_file import replay_file

    if all_ or len(tenants or ()) != 1:
        raise ConfigurationError("--file needs one tenant, whose rows it holds", remedy="name the tenant")
    results: list[tuple[str, CorrectedReplay]] = []

    def load(config: TenantConfig, settings: Settings) -> None:
        results.append((config.tenant, replay_file(config, settings, file, source=source, stream=stream, report=_report)))

    code = run_for_each(tenants, all_, source, stream, load)
    if json_:
        typer.echo(json.dumps([{"tenant": tenant, **asdict(result)} for tenant, result in results], indent=2))
    else:
        for tenant, result in results:
            _print_corrected(tenant, result)
    raise typer.Exit(max(code, int(not all(result.is_complete for _, result in results))))


def _print_corrected(tenant: str, result: "CorrectedReplay") -> None:
    for each in result.streams:
        parts = [f"{each.replayed} replayed"]
        if each.superseded:
            parts.append(_SUPERSEDED.format(each.superseded))
        parts += [f"{len(each.still_bad)} still rejected"] if each.still_bad else []
        typer.echo(f"{tenant} {each.source}.{each.stream}: {'; '.join([*parts, *([each.error] if each.error else [])])}")
        for bad in each.still_bad:
            typer.echo(f"  line {bad.line} ({bad.file}, line {bad.row_number}): {bad.reason}: {bad.message}")
    for line, why in sorted(result.refused.items()):
        typer.echo(f"  line {line} is refused: {why}")
    if result.gone:
        why = "replayed before, or their files hold other rows now"
        typer.echo(f"{tenant}: {len(result.gone)} rows are skipped, as they are no longer rejected: {why} (lines {_name_lines(result.gone)})")
    if result.elsewhere:
        count, lines = len(result.elsewhere), _name_lines(result.elsewhere)
        typer.echo(
            f"{tenant}: {count} rows belong to other streams and are still rejected (lines {lines}); leave out --stream and --source to replay them, too"
        )
    if not result.streams:
        typer.echo(f"{tenant}: nothing was changed")


def _name_lines(lines: Sequence[int]) -> str:
    return ", ".join(map(str, lines[:20])) + (", ..." if len(lines) > 20 else "")


def _report(message: str) -> None:
    typer.echo(message, err=True)


def _describe(result: Any) -> str:
    parts = [f"{result.replayed} replayed"]
    if result.superseded:
        parts.append(_SUPERSEDED.format(result.superseded))
    if result.rejected:
        parts.append(f"{result.rejected} rejected again")
    if result.unreadable:
        parts.append(f"{result.unreadable} cannot be replayed (no whole row was kept)" if not result.error else f"{result.unreadable} left")
    return "; ".join(parts) if not result.error else f"{'; '.join(parts)}; {result.error}"


def _name_row(config: TenantConfig, row: "RejectedRow") -> str:
    """Return the row's number in its file or page; for a row of a table, its primary key."""
    if row.row_number is not None:
        return str(row.row_number)
    source = config.sources.get(row.source)
    stream = source.streams.get(row.stream) if source else None
    fields = row.parse() or {}
    return ", ".join(f"{name} {fields[name]}" for name in (stream.primary_key or () if stream else ()) if name in fields)


def _to_json(row: "RejectedRow") -> dict[str, Any]:
    return {**asdict(row), "rejected_at": row.rejected_at.isoformat(), "quarantined_file": None}


def _file_to_json(file: "DroppedFile") -> dict[str, Any]:
    """Return a quarantined file under the keys of a rejected row."""
    facts, when = file.facts, file.updated_at.isoformat() if file.updated_at else None
    empty = {"row_id": None, "source": file.source, "stream": file.stream, "load_id": None, "run_id": None, "rejected_at": when, "origin": file.name}
    why = {"row_number": None, "table_name": None, "column_name": None, "reason": facts.reason, "message": facts.message, "raw": "", "raw_truncated": False}
    return {**empty, **why, "quarantined_file": file.quarantine_path}
