"""A Singer tap of the tests' own, as a wheel, and its installation by `fabric connectors install`.

The tap reads rows from JSON files. What else it does is in its settings: `code` is run before the sync, with the module's names at hand.
"""

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fabric_assets.config.connectors_file import load_connectors
from fabric_assets.connectors.bridge.installing.building import install
from fabric_assets.settings import Settings

TAP = """
import argparse, json, os, sys, time

SETTINGS = {
    "type": "object",
    "properties": {
        "folder": {"type": "string", "description": "Folder of the rows."},
        "token": {"type": ["string", "null"], "secret": True},
        "code": {"type": ["string", "null"]},
        "skip": {"type": ["array", "null"]},
        "names": {"type": ["array", "null"], "description": "Streams to name in the catalog; default: those that have a file."},
        "region": {"type": "string", "default": "eu"},
    },
    "required": ["folder", "region"],
}
FIELDS = {"id": {"type": ["null", "integer"]}, "owner": {"type": "string"}, "note": {"type": "string"}, "seq": {"type": "integer"}}


def send(kind, **message):
    sys.stdout.write(json.dumps({"type": kind, **message}) + "\\n")


def main():
    parser = argparse.ArgumentParser()
    for option in ("--config", "--catalog", "--state", "--format"):
        parser.add_argument(option)
    parser.add_argument("--discover", action="store_true")
    parser.add_argument("--about", action="store_true")
    options = parser.parse_args()
    if options.about:
        print(json.dumps({"name": "tap-rows", "settings": SETTINGS}))
        return
    config = json.load(open(options.config))
    names = config.get("names") or sorted(name[:-5] for name in os.listdir(config["folder"]) if name.endswith(".json"))
    if options.discover:
        streams = [
            {"tap_stream_id": name, "stream": name, "key_properties": ["id"], "schema": {"type": "object", "properties": FIELDS}, "metadata": []}
            for name in names
        ]
        json.dump({"streams": streams}, sys.stdout)
        return
    catalog = json.load(open(options.catalog))
    state = json.load(open(options.state)) if options.state else {}
    bookmarks = state.get("bookmarks", {})
    exec(config.get("code") or "", {**globals(), **locals()})
    for entry in catalog["streams"]:
        name, root = entry["stream"], next(each["metadata"] for each in entry["metadata"] if not each["breadcrumb"])
        if not root.get("selected") or name in (config.get("skip") or ()):
            continue
        send("SCHEMA", stream=name, schema=entry["schema"], key_properties=entry["key_properties"])
        since = bookmarks.get(name, {}).get("seq", 0) if root["replication-method"] == "INCREMENTAL" else 0
        rows = [row for row in json.load(open(os.path.join(config["folder"], name + ".json"))) if row["seq"] >= since]
        for row in rows:
            send("RECORD", stream=name, record=row)
        bookmarks[name] = {"seq": max([since, *(row["seq"] for row in rows)])}
        send("STATE", value={"bookmarks": bookmarks})
    sys.stdout.flush()
"""


def build_wheel(folder: Path, *, version: str = "1.0", text: str = TAP, program: str = "tap-rows") -> None:
    """Write the wheel of a program into a folder."""
    module = program.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {program}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{program} = {module}:main\n",
    }
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in files.items())
    with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as wheel:
        for name, content in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(name, content)


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


@contextmanager
def only_wheels_of(folder: Path) -> Iterator[None]:
    """Let uv find packages in a folder, and nowhere else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UV_FIND_LINKS", str(folder))
        patch.setenv("UV_OFFLINE", "1")
        patch.setenv("UV_NO_CONFIG", "1")
        # Else uv would take a wheel of the same name from an earlier test.
        patch.setenv("UV_CACHE_DIR", str(folder / "cache"))
        for name in ("UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX", "UV_DEFAULT_INDEX"):
            patch.delenv(name, raising=False)
        yield


def install_tap(root: Path) -> dict[str, Path]:
    """Install the tap as the connector `rows`; return the settings that name it."""
    build_wheel(root)
    return install_program(root, "{type: singer, requirements: [tap-rows==1.0], executable: tap-rows}")


def install_program(root: Path, entry: str) -> dict[str, Path]:
    """Install a program whose wheel lies in the folder as the connector `rows`; return the settings that name it."""
    (root / "connectors.yaml").write_text(f"connectors:\n  rows: {entry}\n")
    found = {"connectors": root / "connectors.yaml", "connectors_dir": root / "connectors"}
    settings = replace(Settings(tenants_dir=root, dbt_project_dir=root, data_dir=root / "data"), **found)
    with only_wheels_of(root):
        for _ in install(settings, load_connectors(settings), names=["rows"], report=lambda line: None):
            pass
    return found
