"""The arguments and options that several commands have, each with one help text."""

from typing import Annotated

import typer

Tenants = Annotated[list[str] | None, typer.Argument(help="Names or globs of tenants.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="Every tenant.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
