"""A command that does the same for each chosen tenant -> its exit code; and the console that shows the results."""

from collections.abc import Callable

import typer
from rich.console import Console

from fabric_assets.cli.tenants import get_tenants
from fabric_assets.config.loader import load_fleet
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.errors import ConfigurationError, FabricError
from fabric_assets.own_faults import keep_traceback
from fabric_assets.settings import Settings, load_settings
from fabric_assets.suggestions import suggest


def run_for_each(patterns: list[str] | None, all_: bool, source: str | None, stream: str | None, work: Callable[[TenantConfig, Settings], None]) -> int:
    """Do the work for each tenant; a failing tenant does not stop the others.

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
            keep_traceback(error, data_dir=settings.data_dir, tenant=name)
            typer.echo(f"error: {error}", err=True)
            code = 1
        except Exception as error:  # noqa: BLE001 - a driver's own error also fails this tenant only; the other tenants' warehouses may be healthy
            from fabric_assets.loading.failures import build_error

            ours = build_error(error, tenant=fleet.tenants[name].config, settings=settings, where=f"tenant {name}", writing=True)
            typer.echo(f"error: {ours}", err=True)
            code = 1
    return code


def _check_names(tenants: list[TenantConfig], source: str | None, stream: str | None) -> None:
    """Refuse an unknown --source or --stream, and suggest the nearest name."""
    sources = {name: config for tenant in tenants for name, config in tenant.sources.items()}
    if source is not None and tenants and source not in sources:
        raise ConfigurationError(f"--source: there is no source '{source}'{suggest(source, sources)}")
    streams = {name for tenant in tenants for other, config in tenant.sources.items() if source in (None, other) for name in config.streams}
    if stream is not None and tenants and stream not in streams:
        raise ConfigurationError(f"--stream: there is no stream '{stream}'{suggest(stream, streams)}")


def get_console() -> Console:
    """Return the console for tables on standard output; in a pipe it is as wide as their content."""
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=400)
