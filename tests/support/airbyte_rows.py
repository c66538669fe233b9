"""An Airbyte connector of the tests' own, as a wheel, and its installation by `fabric connectors install`.

The connector reads rows from JSON files. What else it does is in its settings: `code` is run before the read, with the module's names at hand.
"""

from pathlib import Path

from tests.support.taps import build_wheel, install_program

CONNECTOR = """
import json, os, sys, time

SPEC = {
    "type": "object",
    "additionalProperties": False,
    "required": ["folder"],
    "properties": {
        "folder": {"type": "string"},
        "token": {"type": "string", "airbyte_secret": True},
        "code": {"type": "string"},
        "skip": {"type": "array"},
        "streams": {"type": "array"},
        "login": {"type": "object", "oneOf": [{"properties": {"user": {"type": "string"}, "password": {"type": "string", "airbyte_secret": True}}}]},
    },
}
FIELDS = {"id": {"type": ["null", "integer"]}, "owner": {"type": "string"}, "note": {"type": "string"}, "seq": {"type": "integer"}}


def send(kind, **message):
    sys.stdout.write(json.dumps({"type": kind, **message}) + "\\n")


def send_row(stream, row, **more):
    send("RECORD", record={"stream": stream, "data": row, "emitted_at": 1, **more})


def send_state(stream, state, count=None):
    stats = {} if count is None else {"sourceStats": {"recordCount": count}}
    send("STATE", state={"type": "STREAM", "stream": {"stream_descriptor": {"name": stream}, "stream_state": state}, **stats})


def send_status(stream, status):
    send("TRACE", trace={"type": "STREAM_STATUS", "emitted_at": 1.0, "stream_status": {"stream_descriptor": {"name": stream}, "status": status}})


def send_error(message, kind="system_error", stream=None):
    descriptor = {} if stream is None else {"stream_descriptor": {"name": stream}}
    send("TRACE", trace={"type": "ERROR", "emitted_at": 1.0, "error": {"message": message, "failure_type": kind, **descriptor}})


def main():
    command, arguments = sys.argv[1], sys.argv[2:]
    given = dict(zip(arguments[::2], arguments[1::2]))
    if command == "spec":
        send("SPEC", spec={"connectionSpecification": SPEC})
        return
    config = json.load(open(given["--config"]))
    names = sorted(name[:-5] for name in os.listdir(config["folder"]) if name.endswith(".json"))
    if command == "discover":
        entry = {"supported_sync_modes": ["full_refresh", "incremental"], "source_defined_primary_key": [["id"]]}
        own = [{"name": name, "json_schema": {"type": "object", "properties": FIELDS}, **entry} for name in names]
        send("CATALOG", catalog={"streams": [*own, *config.get("streams", [])]})
        return
    catalog = json.load(open(given["--catalog"]))
    states = json.load(open(given["--state"])) if "--state" in given else []
    exec(config.get("code") or "", {**globals(), **locals()})
    known = {each["stream"]["stream_descriptor"]["name"]: each["stream"]["stream_state"] for each in states}
    failed = False
    for each in catalog["streams"]:
        name = each["stream"]["name"]
        send_status(name, "STARTED")
        if name in (config.get("skip") or ()):
            send_error(f"{name} cannot be read", "transient_error", name)
            send_status(name, "INCOMPLETE")
            failed = True
            continue
        since = known.get(name, {}).get("seq", 0) if each["sync_mode"] == "incremental" else 0
        rows = [row for row in json.load(open(os.path.join(config["folder"], name + ".json"))) if row["seq"] >= since]
        for row in rows:
            send_row(name, row)
        send_state(name, {"seq": max([since, *(row["seq"] for row in rows)])}, float(len(rows)))
        send_status(name, "COMPLETE")
    sys.stdout.flush()
    sys.exit(int(failed))
"""


def install_connector(root: Path) -> dict[str, Path]:
    """Install the connector as `rows`; return the settings that name it."""
    build_wheel(root, text=CONNECTOR, program="source-rows")
    return install_program(root, "{type: airbyte, requirements: [source-rows==1.0], executable: source-rows}")
