"""`fabric`: the command line, composed of one module per family of commands.

Results go to standard output, progress and logs to standard error. Exit codes: 0 done, 1 the work failed or a finding, 2 wrong usage or config.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from fabric_assets.cli import config_commands, connectors, demo, imports, isolation, migrate_values, offboard, prepare, provision, prune, rejects, run, secrets
from fabric_assets.cli.console.streams import describe_unwritable, discard_output, is_closed
from fabric_assets.env_file import load_env_file
from fabric_assets.errors import ConfigurationError, FabricError
from fabric_assets.own_faults import keep_traceback, report_own_fault
from fabric_assets.security.redaction import describe_masked
from fabric_assets.settings import forget_provisioning, load_settings

app = typer.Typer(
    name="fabric",
    help="Load, model and check the data of many customers, each declared in one YAML file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("etl-fabric"))
        raise typer.Exit


@app.callback()
def _read_options(
    show_version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of `fabric` itself."""


app.command("validate")(config_commands.validate)
app.command("schema")(config_commands.schema)
app.command("list")(config_commands.list_)
app.command("explain")(config_commands.explain)
app.command("run")(run.run)
app.command("prepare")(prepare.prepare)
app.command("provision")(provision.provision)
app.command("demo")(demo.demo)
app.command("isolation")(isolation.isolation)
app.command("migrate-values")(migrate_values.migrate_values)
app.command("prune")(prune.prune)
app.command("offboard")(offboard.offboard)
app.add_typer(connectors.app, name="connectors")
app.add_typer(imports.app, name="imports")
app.add_typer(rejects.app, name="rejects")
app.add_typer(secrets.app, name="secrets")


def run_command() -> int:
    """Run the command in the process's arguments; a user's mistake is shown as a message, never as a traceback.

    Returns:
        the exit code.
    """
    try:
        load_env_file()
    except FileNotFoundError:
        print("error: the current folder does not exist any more\n  remedy: change to a folder that exists", file=sys.stderr)
        return 2
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if sys.argv[1:2] not in (["provision"], ["offboard"]):
        forget_provisioning()
    try:
        app()
        return 0
    except SystemExit as end:
        return int(end.code or 0)
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except FabricError as error:
        keep_traceback(error, data_dir=_find_data_dir())
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if is_closed(error):
            return 0
        if (message := describe_unwritable(error)) is None:
            return _report_unforeseen(error)
        discard_output()
        print(f"error: {message}", file=sys.stderr)
        return 1
    except Exception as error:  # noqa: BLE001 - shown with its traceback, without secrets
        return _report_unforeseen(error)


def _report_unforeseen(error: Exception) -> int:
    if fault := report_own_fault(error, "this command", data_dir=_find_data_dir()):
        print(f"error: {fault}", file=sys.stderr)
        return 1
    # Without secrets in it, typer's own traceback is more readable.
    if (traceback := describe_masked(error)) is None:
        raise error
    print(traceback, file=sys.stderr)
    return 1


def _find_data_dir() -> Path | None:
    """Return the folder below which tracebacks are kept; None if the settings themselves are wrong."""
    try:
        return load_settings().data_dir
    except (ConfigurationError, OSError):  # the current folder may be gone
        return None
