"""`fabric rejects`: the rows that loads have set aside: see them, take them out as CSV, load them again."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.table import Table

from fabric_assets.cli.tenants import get_tenants
from fabric_assets.config.loader import load_fleet
from fabric_assets.config.suggestions import suggest
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import ConfigurationError, FabricError
from fabric_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    from fabric_assets.loading.rejects import RejectedRow

app = typer.Typer(name="rejects", help="The rows that loads have set aside.", no_args_is_help=True)

Tenants = Annotated[list[str] | None, typer.Argument(help="Names or globs of tenants.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="Every tenant.")]
Source = Annotated[str | None, typer.Option("--source", help="Only rows of this source.", show_default=False)]
Stream = Annotated[str | None, typer.Option("--stream", help="Only rows of this stream.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command("list")
def list_rows(
    tenants: Tenants = None,
    all_: All = False,
    source: Source = None,
    stream: Stream = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows to show of a tenant.")] = 100,
    json_: AsJson = False,
) -> None:
    """Show rejected rows, and why each was rejected."""
    from fabric_assets.loading.rejects import open_rejects

    rows: list[tuple[str, RejectedRow]] = []

    def take(config: TenantConfig, settings: Settings) -> None:
        with open_rejects(config, settings, source=source, stream=stream) as found:
            rows.extend((config.tenant, row) for portion in found.read(limit) for row in portion)
            if len(found) > limit:
                typer.echo(f"{config.tenant}: the first {limit} of {len(found)} rejected rows; `fabric rejects export` gives all", err=True)

    code = _run(tenants, all_, source, stream, take)
    if json_:
        typer.echo(json.dumps([{"tenant": tenant, **_to_json(row)} for tenant, row in rows], indent=2))
    elif rows:
        table = Table("tenant", "stream", "origin", "row", "column", "reason", "message", "rejected at", box=None, pad_edge=False)
        for tenant, row in rows:
            number = "" if row.row_number is None else str(row.row_number)
            when = f"{row.rejected_at:%Y-%m-%d %H:%M}"
            table.add_row(tenant, f"{row.source}.{row.stream}", row.origin, number, row.column_name or "", row.reason, row.message, when)
        _get_console().print(table)
    elif not code:
        typer.echo("no rejected rows", err=True)
    raise typer.Exit(code)


@app.command("export")
def export(
    tenants: Tenants = None,
    all_: All = False,
    source: Source = None,
    stream: Stream = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: standard output.", show_default=False)] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Leave text that a spreadsheet would run as a formula as it is.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="With --out: print what was written as JSON.")] = False,
) -> None:
    """Write rejected rows as CSV, with the columns of their source; text that could be a formula gets an apostrophe."""
    from fabric_assets.loading.rejects import open_rejects
    from fabric_assets.loading.rejects_csv import RejectsCsv

    if json_ and out is None:
        raise ConfigurationError("--json needs --out: standard output takes the CSV", remedy="name a file with --out")
    made, configs = RejectsCsv(is_raw=raw), list[TenantConfig]()

    def survey(config: TenantConfig, settings: Settings) -> None:
        with open_rejects(config, settings, source=source, stream=stream) as found:
            made.survey(config, found)
        configs.append(config)

    code = _run(tenants, all_, source, stream, survey)
    with _open(out) as file:
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
def replay(tenants: Tenants = None, all_: All = False, source: Source = None, stream: Stream = None, json_: AsJson = False) -> None:
    """Load rejected rows again, as they were kept: after a type, a contract or a table has changed."""
    from fabric_assets.loading.replay import Replayed
    from fabric_assets.loading.replay import replay as run_replay

    results: list[tuple[str, Replayed]] = []

    def load(config: TenantConfig, settings: Settings) -> None:
        for result in run_replay(config, settings, source=source, stream=stream, report=lambda message: typer.echo(message, err=True)):
            results.append((config.tenant, result))

    code = _run(tenants, all_, source, stream, load)
    if json_:
        typer.echo(json.dumps([{"tenant": tenant, **asdict(result)} for tenant, result in results], indent=2))
    else:
        for tenant, result in results:
            typer.echo(f"{tenant} {result.source}.{result.stream}: {_describe(result)}")
    if not results and not code:
        typer.echo("no rejected rows", err=True)
    raise typer.Exit(max(code, int(any(result.error for _, result in results))))


def _run(patterns: list[str] | None, all_: bool, source: str | None, stream: str | None, work: Callable[[TenantConfig, Settings], None]) -> int:
    """Do the work for each tenant; one that fails does not hold up the others.

    Returns:
        the exit code.
    """
    settings = load_settings()
    fleet = load_fleet(settings)
    names = get_tenants(fleet, patterns, all_)
    _check_names([fleet.tenants[name].config for name in names if name in fleet.tenants], source, stream)
    code = 0
    for name in names:
        if name in fleet.broken:
            typer.echo("\n".join(str(problem) for problem in fleet.broken[name]), err=True)
            code = code or 2
            continue
        try:
            work(fleet.tenants[name].config, settings)
        except FabricError as error:
            typer.echo(f"error: {error}", err=True)
            code = 1
    return code


def _check_names(tenants: list[TenantConfig], source: str | None, stream: str | None) -> None:
    """Answer a misspelt --source or --stream with the nearest one."""
    sources = {name: config for tenant in tenants for name, config in tenant.sources.items()}
    if source is not None and tenants and source not in sources:
        raise ConfigurationError(f"--source: there is no source '{source}'{suggest(source, sources)}")
    streams = {name for tenant in tenants for other, config in tenant.sources.items() if source in (None, other) for name in config.streams}
    if stream is not None and tenants and stream not in streams:
        raise ConfigurationError(f"--stream: there is no stream '{stream}'{suggest(stream, streams)}")


def _describe(result: Any) -> str:
    parts = [f"{result.replayed} replayed"]
    if result.superseded:
        parts.append(f"{result.superseded} of them left out, as a newer row with their key is there")
    if result.rejected:
        parts.append(f"{result.rejected} rejected again")
    if result.unreadable:
        parts.append(f"{result.unreadable} cannot be replayed (no whole row was kept)" if not result.error else f"{result.unreadable} left")
    return "; ".join(parts) if not result.error else f"{'; '.join(parts)}; {result.error}"


def _to_json(row: "RejectedRow") -> dict[str, Any]:
    return {**asdict(row), "rejected_at": row.rejected_at.isoformat()}


@contextmanager
def _open(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    # Rows of customers: for their owner's eyes alone.
    out.touch(mode=0o600)
    with out.open("w", encoding="utf-8", newline="") as file:
        yield file


def _get_console() -> Console:
    """Tables go to standard output; piped, they are as wide as their content."""
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=400)
