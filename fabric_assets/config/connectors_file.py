"""connectors.yaml, the operators' list of foreign connectors -> its entries. A tenant's YAML may only name one of them."""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from fabric_assets.config.base import CheckedModel, Duration, FabricModel, Flag, Path, Size, Text
from fabric_assets.config.messages import get_mistakes
from fabric_assets.config.problems import Problem, make_problem
from fabric_assets.config.sources.connectors import ConnectorName
from fabric_assets.config.yaml_file import load_document
from fabric_assets.config.yaml_tree import to_plain
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from fabric_assets.suggestions import suggest

# A name, extras, and versions: no address, no option of pip, no marker that another machine reads otherwise.
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]+\])?\s*([<>=!~]=?=?\s*[A-Za-z0-9.*+!_-]+\s*,?\s*)*")
_PROGRAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _check_requirement(value: str) -> str:
    if not _REQUIREMENT.fullmatch(value):
        raise ValueError("must be a package's name and versions, such as tap-github==1.9.0 or stripe<13")
    return value


def _check_program(value: str) -> str:
    if not _PROGRAM.fullmatch(value):
        raise ValueError("must be the name of a program that the requirements install, without a path")
    return value


def _check_function(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", value):
        raise ValueError("must be a module and a function, such as acme_sources.stripe:stripe_source")
    return value


def _check_own_path(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("must be a path beside connectors.yaml, without ..")
    return value


def _check_python(value: str) -> str:
    if not re.fullmatch(r"3\.\d{1,2}", value):
        raise ValueError("must be a version of Python such as '3.12', in quotes")
    return value


class ConnectorLimits(FabricModel):
    """What one run of a connector may use."""

    memory: Size = Field(default=2 * 1000**3, description="Resident memory of all its processes.")
    cpu: Duration = Field(default=timedelta(hours=1), description="Processor time of all its processes.")
    spill: Size = Field(default=10 * 1000**3, description="Rows that may wait on disk until they can be committed.")
    line: Size = Field(default=50 * 1000**2, description="The longest line of its output.")


class ConnectorEntry(CheckedModel):
    """A connector that the operators install."""

    type: Literal["singer", "dlt", "airbyte"] = Field(
        description="How it speaks: singer for a Singer tap, dlt for a dlt source, airbyte for an Airbyte connector."
    )
    requirements: tuple[Annotated[Text, AfterValidator(_check_requirement)], ...] = Field(
        default=(), max_length=50, description="Packages to install, with their versions: beside dlt itself, and airbyte-cdk for a manifest."
    )
    executable: Annotated[Text, AfterValidator(_check_program)] | None = Field(default=None, description="singer, airbyte: the program to run, by its name.")
    source: Annotated[Text, AfterValidator(_check_function)] | None = Field(
        default=None, description="dlt: the function that makes the source or resource, as package.module:function."
    )
    path: Annotated[Text, AfterValidator(_check_own_path)] | None = Field(
        default=None, description="dlt: a folder beside connectors.yaml with modules of your own; it is copied into the environment."
    )
    manifest: Annotated[Text, AfterValidator(_check_own_path)] | None = Field(
        default=None, description="airbyte: a low-code manifest beside connectors.yaml, in place of an executable; it is copied into the environment."
    )
    python: Annotated[Text, AfterValidator(_check_python)] | None = Field(default=None, description="Version of Python; default: that of the platform.")
    build: Flag = Field(default=False, description="Whether packages may be built from source, which runs their code during the installation.")
    trusted: Flag = Field(default=False, description="Whether the connector runs without confinement: with all rights of the platform's user.")
    limits: ConnectorLimits = Field(default=ConnectorLimits(), description="What one run may use.")

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield the keys that an entry of its type lacks, or does not know."""
        needed = {"singer": ("requirements", "executable"), "dlt": ("source",), "airbyte": ("requirements", "executable")}[self.type]
        foreign = {"singer": ("source", "path", "manifest"), "dlt": ("executable", "manifest"), "airbyte": ("source", "path")}[self.type]
        if self.manifest and self.type == "airbyte":
            needed, foreign = (), (*foreign, "executable")
        for name in needed:
            if not getattr(self, name):
                yield (), f"needs {name}, as its type is {self.type}"
        for name in foreign:
            if getattr(self, name) is not None:
                yield (name,), f"is not known to the type {self.type}"
        if self.type == "dlt" and not (self.requirements or self.path):
            yield (), "needs requirements or path: where the source's module comes from"


class ConnectorsFile(FabricModel):
    """The operators' list of connectors."""

    connectors: dict[ConnectorName, ConnectorEntry] = Field(max_length=500, description="The connectors, by the name that tenants' YAML uses.")


def load_connectors(settings: Settings) -> dict[str, ConnectorEntry]:
    """Load the list; a file that does not exist is an empty one.

    Raises:
        ConfigurationError: the file has mistakes; the message has all of them.
    """
    file = settings.connectors
    if not file.exists():
        return {}
    document = load_document(file)
    problems = [make_problem("", file, (found.line, found.column), found.path, found.message, text=document.text) for found in document.findings]
    if document.root is not None and not problems:
        try:
            return ConnectorsFile.model_validate(to_plain(document.root)).connectors
        except ValidationError as error:
            mistakes = get_mistakes(error, document.root, ConnectorsFile)
            problems = [make_problem("", file, mistake.location, mistake.path, mistake.message, text=document.text) for mistake in mistakes]
    raise ConfigurationError(_join(problems), remedy="correct the file")


def get_entry(connectors: dict[str, ConnectorEntry], name: str, settings: Settings) -> ConnectorEntry:
    """Get an entry of the list.

    Raises:
        ConfigurationError: there is none of that name; the message has the nearest one.
    """
    if name not in connectors:
        raise ConfigurationError(f"there is no connector {name!r}{suggest(name, connectors)}", remedy=f"add it to {settings.connectors}, or name another one")
    return connectors[name]


def _join(problems: list[Problem]) -> str:
    return "\n".join(map(str, problems))
