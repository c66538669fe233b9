"""`fabric`: the command line, put together from one module per family of commands.

Results go to standard output, progress and logs to standard error. Exit codes: 0 done, 1 the work failed or a finding, 2 wrong usage or config.
"""

import gc
import sys

import typer
from dotenv import load_dotenv

from fabric_assets.cli import config_commands, demo, imports, rejects, run, secrets
from fabric_assets.errors import ConfigurationError, FabricError

app = typer.Typer(
    name="fabric",
    help="Load, model and check the data of many customers, each declared in one YAML file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command("validate")(config_commands.validate)
app.command("schema")(config_commands.schema)
app.command("list")(config_commands.list_)
app.command("explain")(config_commands.explain)
app.command("run")(run.run)
app.command("demo")(demo.demo)
app.add_typer(imports.app, name="imports")
app.add_typer(rejects.app, name="rejects")
app.add_typer(secrets.app, name="secrets")


def main() -> None:
    """Run the command line; a mistake of the user's is a message, never a traceback."""
    load_dotenv(".env")
    try:
        app()
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except FabricError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        # Else Python looks through all that Dagster has imported for garbage, once more before it ends: half a second.
        gc.freeze()
