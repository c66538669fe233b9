"""`python -m fabric_assets.transform.worker`: imports dbt while its parent does other things, then serves one request and ends.

Standard output carries only events: what dbt, its adapters and models print goes to standard error. The process ends when its standard input is closed, so it
never outlives its parent. It then removes its folder.
"""

import json
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TextIO

from fabric_assets.errors import ConfigurationError, InternalError, UnresolvedPackages
from fabric_assets.importing import without_garbage_collection
from fabric_assets.own_faults import find_own_fault
from fabric_assets.transform.folders import RunFolder

_PARENT_POLL_SECONDS = 1.0


class Channel:
    """The pipes to the parent."""

    def __init__(self) -> None:
        self._out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._parent = os.getppid()
        self._lock = Lock()
        self._requests: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._run: RunFolder | None = None
        Thread(target=self._listen, name="parent", daemon=True).start()

    def emit(self, event: dict[str, Any]) -> None:
        with self._lock:
            self._out.write(json.dumps(event, default=str) + "\n")
            self._out.flush()

    def hold(self, run: RunFolder) -> None:
        """Keep the folder that is removed when the parent ends."""
        self._run = run

    def get_request(self) -> dict[str, Any]:
        return self._requests.get()

    def _listen(self) -> None:
        """Receive requests until the parent ends, then end the process."""
        try:
            self._receive()
            if self._run:
                self._run.remove()
        finally:
            os._exit(0)  # whatever goes wrong here, the process must not outlive its parent

    def _receive(self) -> None:
        received = b""
        while os.getppid() == self._parent:
            if not select.select([0], [], [], _PARENT_POLL_SECONDS)[0]:
                continue
            chunk = os.read(0, 1 << 16)
            if not chunk:
                break
            received += chunk
            if b"\n" in received:
                self._requests.put(json.loads(received))
                received = b""


def main(arguments: Sequence[str]) -> None:
    channel = Channel()
    with without_garbage_collection():
        _warm(channel, *arguments)
    channel.emit({"event": "ready"})
    request = channel.get_request()
    run = RunFolder(Path(request["folder"]), request.get("run_id", ""))
    channel.hold(run)
    # Relative paths in models, and HOME, lead into the run's own folder.
    os.environ["HOME"] = str(run.path)
    os.chdir(run.path)
    try:
        _serve(request, run, channel)
    finally:
        os.chdir("/")
        run.remove()
    channel.emit({"event": "done"})
    sys.stderr.flush()
    os._exit(0)  # nothing is left to close, and taking dbt's modules apart would keep the parent waiting


def _warm(channel: Channel, adapter: str, project_dir: str = "", prepared: str = "") -> None:
    from fabric_assets.transform.worker import warming

    warming.import_dbt(adapter)
    if prepared:
        try:
            warming.rehearse(adapter, project_dir, Path(prepared), hold=channel.hold)
        except Exception as error:  # noqa: BLE001 - what is wrong with the project is said by the build itself
            fault = find_own_fault(error, "the dbt process")
            print("not warmed:", *([fault.message, fault.traceback] if fault else [error]), file=sys.stderr)


def _serve(request: dict[str, Any], run: RunFolder, channel: Channel) -> None:
    from fabric_assets.transform.worker.building import BuildFailed, build
    from fabric_assets.transform.worker.parse.preparing import prepare
    from fabric_assets.transform.worker.selecting import select

    try:
        if request["do"] == "prepare":
            prepare(request, run)
        elif request["do"] == "select":
            select(request, run, channel.emit)
        else:
            build(request, run, channel.emit)
    except UnresolvedPackages as error:
        channel.emit({"event": "unresolved", "message": error.message})
    except ConfigurationError as error:
        channel.emit({"event": "refused", "message": error.message, "remedy": error.remedy})
    except BuildFailed as error:
        channel.emit({"event": "failed", "message": str(error), "unreachable": error.unreachable})
    except Exception as error:
        if (fault := error if isinstance(error, InternalError) else find_own_fault(error, "the dbt process")) is None:
            raise
        channel.emit({"event": "fault", "message": fault.message, "traceback": fault.traceback})


if __name__ == "__main__":
    main(sys.argv[1:])
