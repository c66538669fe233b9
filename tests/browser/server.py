"""Dagster's UI, served by the very script that `make dev` calls."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.conftest import ROOT
from tests.support.services import get_free_port


@contextlib.contextmanager
def serve_ui(data_dir: Path, **settings: str) -> Iterator[str]:
    """Serve the UI, and yield its address.

    Args:
        settings: further variables of the environment.
    """
    port = get_free_port()
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("FABRIC_", "DAGSTER_"))}
    environ |= {"FABRIC_DATA_DIR": str(data_dir), "FABRIC_PUBLISH_DIR": f"{data_dir}-published", "PORT": str(port), "PYTHONWARNINGS": "default", **settings}
    log = data_dir.parent / "dev.log"
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, "scripts/dev.py"], cwd=ROOT, env=environ, stdout=output, stderr=output, process_group=0)
        try:
            wait_for(f"http://127.0.0.1:{port}/server_info", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(90)
    assert not (left := find_processes(str(data_dir))), f"`make dev` has ended and left behind: {left}"


def find_processes(data_dir: str) -> list[str]:
    """The command lines of processes whose environment names the data folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if f"FABRIC_DATA_DIR={data_dir}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=2):
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.5)
    pytest.fail(f"the UI did not come up in 120 s:\n{log.read_text()}")


def keep(page: Page, name: str) -> None:
    if folder := os.environ.get("FABRIC_TEST_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}.png")
