"""A source's dataset -> the pipeline's state that dlt stores in `_dlt_pipeline_state`: how the pipeline is named and where it writes.

It holds no stream's state and no secret. A key of ours holds the hash of the schema, so that an attached pipeline whose copy is older
gets the new layout by `sync_destination`.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

ENGINE_VERSION = 4
_OURS, _LAYOUT = "etl_fabric", "layout"


def build_state(pipeline: str, *, dataset: str, schema: str, destination: str, layout: str, version: int) -> tuple[str, str]:
    """Build a state as dlt stores it, and its hash.

    Args:
        schema: the name of the only schema.
        destination: the destination's type.
        layout: the hash of the schema.
        version: of the state; dlt takes the state of a destination if its version is not lower than that of the own copy.
    """
    content = {
        "default_schema_name": schema,
        "schema_names": [schema],
        "dataset_name": dataset,
        "pipeline_name": pipeline,
        "destination_type": f"dlt.destinations.{destination}",
        "destination_name": None,
        _OURS: {_LAYOUT: layout},
    }
    found = base64.b64encode(hashlib.sha3_256(_dump(content, is_sorted=True)).digest()).decode("ascii")
    state = {"_state_version": version, "_state_engine_version": ENGINE_VERSION, **content, "_version_hash": found}
    return base64.b64encode(zlib.compress(_dump(state), level=9)).decode("ascii"), found


def read_layout(state: str) -> str | None:
    """Read the hash of the schema from a stored state; None if the state is not ours, or damaged."""
    try:
        found = json.loads(zlib.decompress(base64.b64decode(state, validate=True)))
        return str(found[_OURS][_LAYOUT])
    except (ValueError, TypeError, KeyError, zlib.error):
        return None


def _dump(value: Mapping[str, Any], *, is_sorted: bool = False) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=is_sorted).encode()
