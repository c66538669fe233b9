"""A load in a process of its own, which kills itself at the commit of a stream's transaction."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

from fabric_assets.warehouse.transaction import Transaction
from tests.support.shop import Tenant


def kill_at_commit(tenant: Tenant, moment: str, prepare: Callable[[], None] | None = None) -> None:
    """Load until the commit, and kill the process there.

    Args:
        moment: `before` or `after` the commit.
        prepare: a function of a module, called in the process before the load.
    """
    child = multiprocessing.get_context("spawn").Process(target=_load_and_die, args=(tenant, moment, prepare))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def _load_and_die(tenant: Tenant, moment: str, prepare: Callable[[], None] | None) -> None:
    if prepare is not None:
        prepare()
    commit: Callable[..., None] = Transaction.commit

    def die(self: Transaction, *args: Any) -> None:
        if moment == "after":
            commit(self, *args)
        os.kill(os.getpid(), signal.SIGKILL)

    Transaction.commit = die
    tenant.load()
