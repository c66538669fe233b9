"""A source's chosen resources -> their rows, and the state that covers them.

A test runs the program with each version of dlt that is admitted, because it uses some of dlt's private names.
"""

import traceback
from collections.abc import Iterator
from typing import Any

from dlt_program.output import Output, Refused
from dlt_program.sources import make_source, shorten
from dlt_program.streams import Stream


def read(order: dict[str, Any], output: Output) -> None:
    """Read the chosen resources, and send rows and state."""
    from dlt.common.configuration.container import Container
    from dlt.common.configuration.resolve import inject_section
    from dlt.common.json import json as typed
    from dlt.common.pipeline import StateInjectableContext
    from dlt.extract.exceptions import ResourcesNotFoundError
    from dlt.extract.pipe_iterator import PipeIterator
    from dlt.extract.source import SourceInjectableContext, SourceSchemaInjectableContext

    source = make_source(order)
    try:
        selected = source.with_resources(*order["resources"])
    except ResourcesNotFoundError as error:
        raise Refused(
            f"the source has no resource {', '.join(sorted(error.not_found_resources))}; it has {', '.join(sorted(error.available_resources))}"
        ) from None
    known = order["state"] or {}
    own = {**(typed.typed_loads(known["source"]) if known.get("source") else {})}
    own["resources"] = {name: typed.typed_loads(text) for name, text in known.get("resources", {}).items()}
    state: Any = {"sources": {source.name: own}}
    section = selected._get_config_section_context()
    container = Container()
    with (
        inject_section(section),
        container.injectable_context(StateInjectableContext(state=state)),
        container.injectable_context(SourceSchemaInjectableContext(selected.schema)),
        container.injectable_context(SourceInjectableContext(selected)),
    ):
        failed = set[str]()
        streams = {name: Stream(resource, selected, order["resources"][name], output) for name, resource in selected.resources.selected.items()}
        for name, stream in streams.items():
            # As dlt does it: a table that is replaced is read as a whole, whatever the last run has seen.
            if (order["dispositions"].get(name) or stream.disposition) == "replace":
                own["resources"].pop(name, None)
        # Resources that share no parent are read one after the other, so that one that fails spares the rest.
        for names in group_by_parents(streams):
            try:
                with PipeIterator.from_pipes([selected.resources[name]._pipe for name in names]) as pipes:
                    for item in pipes:
                        resource = selected.resources.with_pipe(item.pipe)
                        # A parent that is read for a transformer alone has no stream.
                        if (stream := streams.get(resource.name)) is not None and item.item is not None:
                            stream.write(item.item, item.meta)
                for name in names:
                    streams[name].finish()
            except Refused:
                raise
            except Exception as error:  # noqa: BLE001 - whatever the source raises, told to the load
                traceback.print_exc()
                for name in names:
                    output.send("FAILED", stream=streams[name].name, message=describe_failure(error))
                failed.update(names)
    send_state(state, streams, failed, output)


def group_by_parents(streams: "dict[str, Stream]") -> Iterator[list[str]]:
    """Yield the names of resources that have a parent in common, or are one another's parent."""
    left = {name: {name, *stream.parents} for name, stream in streams.items()}
    while left:
        name, reached = left.popitem()
        names = [name]
        while joined := [other for other, lineage in left.items() if lineage & reached]:
            for other in joined:
                reached |= left.pop(other)
                names.append(other)
        yield sorted(names)


def describe_failure(error: BaseException) -> str:
    """Describe what a resource itself has raised, below the exceptions that dlt wraps it in."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {shorten(error)}"


def send_state(state: dict[str, Any], streams: "dict[str, Stream]", failed: set[str], output: Output) -> None:
    """Send the state: by resource, if it is of the chosen resources alone; else as one that covers all of them."""
    from dlt.common.json import json as typed

    own = dict(next(iter(state["sources"].values()), {}))
    # What a resource that has failed left in its state does not count.
    resources = {name: value for name, value in own.pop("resources", {}).items() if value and name not in failed}
    written = {name: typed.typed_dumps(value) for name, value in resources.items()}
    if own or not written.keys() <= streams.keys() or any(parent in written for stream in streams.values() for parent in stream.parents):
        output.send("STATE", value={"source": typed.typed_dumps(own) if own else None, "resources": written})
    else:
        output.send("STATE", value={"bookmarks": written})
