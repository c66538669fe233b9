"""Commands of other programs that end with the process that has started them: left alone, they would write while its successor does."""

import os
import sys
from collections.abc import Sequence

# 1 is PR_SET_PDEATHSIG, 9 is SIGKILL; the setting outlives the start of the program. A parent that ended before it was made is noticed.
_BIND = """
import ctypes, os, sys
parent, *command = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the process that wanted this has ended")
os.execv(command[0], command)
"""


def bind(command: Sequence[str]) -> list[str]:
    """Build the command that ends with this process. It must be started by a thread that lives as long as the command may run.

    Args:
        command: its program is an absolute path.
    """
    return [sys.executable, "-I", "-c", _BIND, str(os.getpid()), *command]
