"""The beginning and the end of the process of `fabric`."""

import gc
import logging
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

from fabric_assets.cli.console.streams import finish_output, prepare_streams
from fabric_assets.importing import without_garbage_collection


def main() -> None:
    """Run the command line."""
    # numpy starts OpenBLAS's threads as it is imported. Nothing here multiplies matrices, and they would keep a core from the loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    prepare_streams()
    with without_garbage_collection():
        from fabric_assets.cli.app import run_command
    code = finish_output(run_command())
    # Otherwise Python searches all objects for garbage before it ends, which takes half a second.
    gc.freeze()
    if any(thread.daemon for thread in threading.enumerate()):
        _end(code)
    sys.exit(code)


def _end(code: int) -> NoReturn:
    """End the process at once.

    A load that timed out or was interrupted may have left a thread in a driver's call, which would abort the process as Python ends.
    """
    logging.shutdown()
    with suppress(BrokenPipeError):  # the reader has closed the pipe and needs no more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
