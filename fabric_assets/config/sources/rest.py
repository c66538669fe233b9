"""What a `rest_api` source declares beside its streams' keys: auth, parents. Words follow dlt's rest_api."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from fabric_assets.config.base import FabricModel, HttpUrlOrReference, Identifier, Name, Path, SecretRef, Text, TextOrReference
from fabric_assets.config.sources.deletes import RestDeletes, RestDeletesConfig, find_delete_contradictions
from fabric_assets.config.sources.rest_paging import PaginatorConfig
from fabric_assets.config.sources.streams import CursorConfig, RenamingStream, find_cursor_contradictions
from fabric_assets.suggestions import suggest

_FIELD = r"([a-z][a-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_.]*)"
# `{stream.field}`; in two braces it is the text itself. Other braces, as in JSON, have no meaning.
PLACEHOLDER = re.compile(rf"\{{\{{({_FIELD})\}}\}}|\{{{_FIELD}\}}")
_IN_BRACES = re.compile(r"\{([^{}]*)\}")
_LIKE_A_PLACEHOLDER = re.compile(r"(?<!\{)\{([A-Za-z_][\w.]*)\}|\{([A-Za-z_][\w.]*)\}(?!\})")
_CREDENTIAL = re.compile(r"(^|[_-])(authorization|cookie|(api|access|secret|private|auth)[_-]?key|token|secret|password|passwd|pwd)($|[_-])", re.IGNORECASE)


_ORIGIN = re.compile(r"^https?://(\[[0-9A-Fa-f:.]+\]|[^\s@\[\]:/?#\\]+)(:\d{1,5})?$")


class BearerAuth(FabricModel):
    """A token in the Authorization header."""

    type: Literal["bearer"] = Field(description="A token in the Authorization header.")
    token: SecretRef = Field(description="Where the token is kept.")


class ApiKeyAuth(FabricModel):
    """A key in a header; never in the query, where logs and exceptions would show it."""

    type: Literal["api_key"] = Field(description="A key in a header of its own.")
    name: Text = Field(default="X-API-Key", description="Header that carries the key.")
    key: SecretRef = Field(description="Where the key is kept.")


class BasicAuth(FabricModel):
    """User and password (RFC 7617)."""

    type: Literal["basic"] = Field(description="User and password.")
    username: TextOrReference = Field(description="The user, or where the name is kept.")
    password: SecretRef = Field(description="Where the password is kept.")


class OAuth2ClientCredentials(FabricModel):
    """A token fetched with the client's own credentials (RFC 6749, 4.4)."""

    type: Literal["oauth2_client_credentials"] = Field(description="A token fetched with the client's own credentials.")
    token_url: HttpUrlOrReference = Field(description="Where tokens are given out.")
    client_id: TextOrReference = Field(description="The client's name, or where it is kept.")
    client_secret: SecretRef = Field(description="Where the client's secret is kept.")
    scope: Text | None = Field(default=None, description="Scope to request for the token.")
    method: Literal["client_secret_post", "client_secret_basic"] | None = Field(
        default=None,
        description="How the secret is sent to token_url: in the form, or as user and password (RFC 6749, 2.3.1); default: the form, then the other way.",
    )


AuthConfig = Annotated[BearerAuth | ApiKeyAuth | BasicAuth | OAuth2ClientCredentials, Field(discriminator="type")]


def check_encoding(value: str) -> str:
    """Refuse what is not the name of a charset."""
    try:
        "".encode(value)
    except (LookupError, UnicodeError) as error:
        raise ValueError("is not an encoding that Python knows, e.g. utf-8, iso-8859-1 or windows-1252") from error
    return value


class RestCursor(CursorConfig):
    """An incremental field, and the query parameter that asks for what is newer."""

    param: Text = Field(description="Query parameter that takes the last value.")


# The texts that may have placeholders, by their path below the stream.
Templates = Mapping[Path, str]


class RestStream(RenamingStream):
    """One endpoint. Path and params may take fields of another stream: `orders/{orders.id}/items`."""

    path: Text = Field(description="Below base_url; `{stream.field}` takes a field of a parent stream, once per parent row.")
    params: dict[Text, Text | int | bool] = Field(
        default={}, description="Query parameters; no credentials. `{stream.field}` takes a field of a parent stream, as in path."
    )
    data: Text | None = Field(
        default=None, description="JSONPath of the rows in the answer; default: found by dlt, and of a path that ends in a parent's field the answer itself."
    )
    format: Literal["json", "jsonl"] = Field(default="json", description="How answers are written: one JSON value, or one a line (JSON Lines, NDJSON).")
    encoding: Annotated[Text, AfterValidator(check_encoding)] | None = Field(
        default=None, description="Of the answers, e.g. windows-1252; default: the charset of their Content-Type, else UTF-8."
    )
    paginator: PaginatorConfig | None = Field(default=None, description="Default: the source's, else found by dlt.")
    include_from_parent: tuple[Identifier, ...] = Field(default=(), description="Fields of the parent row to keep, as `_<parent>_<field>`.")
    cursor: RestCursor | None = Field(default=None, description="Makes the load incremental.")
    deletes: RestDeletes = Field(default=RestDeletesConfig(), description="What happens to rows that the API no longer has; a mode as one word, or a mapping.")

    @property
    def templates(self) -> Templates:
        """The texts that may take fields of a parent."""
        return {("path",): self.path, **{("params", name): value for name, value in self.params.items() if isinstance(value, str)}}

    def get_parent(self) -> str | None:
        """Return the parent stream; None for a stream without one."""
        found = find_parent(self.templates)
        return found[0] if found else None

    def get_parent_fields(self) -> list[str]:
        """List the fields of the parent that path and params take."""
        return [field for text in self.templates.values() for _, field in find_placeholders(text)]

    def asks_for_one(self) -> bool:
        """Whether the path's last part holds a parent's field, as that of a single object does."""
        return bool(find_placeholders(self.path.partition("?")[0].rstrip("/").rpartition("/")[2]))

    def get_query(self) -> dict[str, str | int]:
        """Return the query parameters as APIs expect them: true, not True."""
        return {name: str(value).lower() if isinstance(value, bool) else value for name, value in self.params.items()}

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield what would lose rows, or carry a credential to where it does not belong."""
        yield from super().find_contradictions()
        yield from find_cursor_contradictions(self, self.cursor)
        yield from find_delete_contradictions(self.deletes, self.disposition)
        yield from self._find_wrong_addresses_of_keys()
        if "://" in self.path or self.path.startswith("//"):
            yield ("path",), "must lie below base_url: a token must not follow to another host"
        yield from self._find_misspelt_placeholders()
        parent = self.get_parent()
        if parent and self.cursor:
            yield ("cursor",), "a child stream cannot have a cursor; give the parent one"
        if self.include_from_parent and not parent:
            yield ("include_from_parent",), "needs a path or params with {stream.field}"
        for name in self.params:
            if is_credential(name):
                yield ("params", name), "query parameters stand in logs: a credential belongs under auth, as a reference"
            elif self.cursor and name == self.cursor.param:
                yield ("params", name), "is the cursor's parameter; drop it here"

    def _find_wrong_addresses_of_keys(self) -> Iterator[tuple[Path, str]]:
        deletes = self.deletes
        for key in deletes.list_own():
            if deletes.mode == "ignore":
                yield ("deletes", key), "says where keys are read, and without a mode none are; add mode: soft or hard"
            elif self.get_parent():
                yield ("deletes", key), "the keys of a child stream are read below the rows of its parent; leave it out"
        if deletes.path and ("://" in deletes.path or deletes.path.startswith("//") or _IN_BRACES.search(deletes.path)):
            yield ("deletes", "path"), "must lie below base_url, and takes no parent's field"
        for name in deletes.params:
            if is_credential(name):
                yield ("deletes", "params", name), "query parameters stand in logs: a credential belongs under auth, as a reference"

    def _find_misspelt_placeholders(self) -> Iterator[tuple[Path, str]]:
        parents: dict[str, None] = {}
        for where, text in self.templates.items():
            known = {f"{parent}.{field}" for parent, field in find_placeholders(text)}
            if where == ("path",):
                unknown = [inner for inner in _IN_BRACES.findall(text) if inner not in known]
            else:
                unknown = [found for pair in _LIKE_A_PLACEHOLDER.findall(text) if (found := pair[0] or pair[1]) not in known]
            for inner in unknown:
                instead = "" if where == ("path",) else f", or {{{{{inner}}}}} for the text itself" if re.fullmatch(_FIELD, inner) else ""
                yield where, f"{{{inner}}} is no parent's field; write {{stream.field}}{instead}"
            parents |= dict.fromkeys(parent for parent, _ in find_placeholders(text))
            if len(parents) > 1:
                yield where, f"takes fields of more than one parent ({', '.join(parents)}); it can take those of one"
                return


def is_origin(url: str) -> bool:
    """Whether a URL is scheme, host and port alone."""
    return _ORIGIN.fullmatch(url) is not None


def is_credential(name: str) -> bool:
    """Whether a header or query parameter has the name of a credential."""
    return _CREDENTIAL.search(name) is not None


def find_placeholders(text: str) -> list[tuple[str, str]]:
    """List the stream and the field of each `{stream.field}`."""
    return [(match[4], match[5]) for match in PLACEHOLDER.finditer(text) if match[4]]


def find_parent(templates: Templates) -> tuple[str, Path] | None:
    """Find the parent that a stream's texts name first, and the path of the text; None if they name none."""
    return next(((parent, where) for where, text in templates.items() for parent, _ in find_placeholders(text)), None)


def find_orphans(streams: Mapping[Name, Templates]) -> Iterator[tuple[Path, str]]:
    """Yield the streams whose parent is not declared, or that are their own ancestor.

    Args:
        streams: each stream of one source with its texts.
    """
    for name, templates in streams.items():
        seen, found = [name], find_parent(templates)
        at = ("streams", name, *(found[1] if found else ()))
        while found:
            parent = found[0]
            if parent not in streams:
                if len(seen) == 1:
                    yield at, f"the parent '{parent}' is no stream of this source{suggest(parent, streams)}"
                break
            if parent in seen:
                if parent == name:
                    yield at, f"parents form a circle: {' -> '.join([*seen, parent])}"
                break
            seen.append(parent)
            found = find_parent(streams[parent])


def find_forgotten_children(streams: Mapping[Name, RestStream]) -> Iterator[tuple[Path, str]]:
    """Yield the streams with `replace` whose parent has a cursor: only its new rows are read, so the older rows' children would be lost."""
    for name, stream in streams.items():
        seen, parent = {name}, stream.get_parent()
        while parent and parent in streams and parent not in seen:
            if streams[parent].cursor and stream.disposition == "replace":
                yield (
                    ("streams", name),
                    f"replace would drop the rows of all {parent} but the new ones; declare a primary_key (merge), or drop the cursor of {parent}",
                )
                break
            seen.add(parent)
            parent = streams[parent].get_parent()
