"""Where the process of `fabric` begins and ends."""

import gc
import logging
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

from fabric_assets.cli.console.streams import finish_output, prepare_streams
from fabric_assets.importing import collect_nothing


def main() -> None:
    """Run the command line."""
    # Nothing here multiplies matrices, and OpenBLAS's threads, which numpy starts as it is imported, would keep a core from whoever loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    prepare_streams()
    with collect_nothing():
        from fabric_assets.cli.app import run_command
    code = finish_output(run_command())
    # Else Python looks through all that there is for garbage, once more before it ends: half a second.
    gc.freeze()
    if any(thread.daemon for thread in threading.enumerate()):
        _end(code)
    sys.exit(code)


def _end(code: int) -> NoReturn:
    """End at once: a thread that a load has left in a driver's call, its time over or the run interrupted, would abort the process as Python ends."""
    logging.shutdown()
    with suppress(BrokenPipeError):  # whoever has read it needs no more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
