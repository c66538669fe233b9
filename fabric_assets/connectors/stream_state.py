"""What a stream remembers from load to load: cursor, files, types. It commits with the rows, in dlt's state.

In the source's part of that state: dlt forgets the resource's part with every load of a replaced stream, and with it the types
that its columns have in the warehouse.
"""

from typing import Any

import dlt

from fabric_assets.connectors.context import SourceContext


def get_stream_state(context: SourceContext, stream: str) -> dict[str, Any]:
    """Get the stream's memory, empty under a full refresh; only inside a running extraction."""
    streams = dlt.current.source_state().setdefault("streams", {})
    if context.full_refresh:
        streams[stream] = {}
    return streams.setdefault(stream, {})
