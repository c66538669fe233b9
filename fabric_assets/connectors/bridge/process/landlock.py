"""Landlock: rules of the Linux kernel that a process sets for itself and all its descendants, and that none of them can lift.

Numbers are those of the kernel's header files `linux/landlock.h` and `asm-generic/unistd.h`, the same on x86-64 and ARM64. Only the standard library is
imported, because the supervisor imports this module.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_BENEATH, _PORT = 1, 2
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
# All rights of the first version: execute, write, read, list, remove, and make each kind of file.
_FIRST = (1 << 13) - 1
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_BIND, _CONNECT = 1 << 0, 1 << 1
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1

# The first version whose rules cover TCP, and the first one whose rules cover signals and abstract sockets.
NETWORK_VERSION, SIGNALS_VERSION = 4, 6


def get_version() -> int:
    """Return the version of the running kernel's Landlock; 0 without one."""
    found = _call(_CREATE_RULESET, None, 0, _VERSION_FLAG, check=False)
    return max(found, 0)


def restrict(*, readable: Iterable[Path], writable: Iterable[Path], port: int | None) -> None:
    """Restrict this process to paths and to one port, for good. Paths that do not exist are left out.

    Args:
        readable: files and folders that may be read and executed.
        writable: files and folders that may also be changed.
        port: the only TCP port that it may connect to; None for no port.

    Raises:
        OSError: the kernel has no Landlock, or not one that covers the network.
    """
    version = get_version()
    if version < NETWORK_VERSION:
        raise OSError(errno.ENOSYS, f"Landlock version {version} does not cover the network")
    files = _FIRST | _REFER | _TRUNCATE | (_IOCTL_DEV if version >= 5 else 0)
    scoped = _ABSTRACT_SOCKETS | _SIGNALS if version >= SIGNALS_VERSION else 0
    attributes = struct.pack("=QQQ", files, _BIND | _CONNECT, scoped)[: 24 if version >= SIGNALS_VERSION else 16]
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in readable:
            _allow(ruleset, path, _EXECUTE | _READ_FILE | _READ_DIR)
        for path in writable:
            _allow(ruleset, path, files)
        if port is not None:
            _call(_ADD_RULE, ruleset, _PORT, struct.pack("=QQ", _CONNECT, port), 0)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= _ON_FILES
        _call(_ADD_RULE, ruleset, _BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None, check: bool = True) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    # A long each: the kernel reads a whole register.
    result = library.syscall(ctypes.c_long(number), *(ctypes.c_long(value) if isinstance(value, int) else value for value in arguments))
    if result < 0 and check:
        raise OSError(ctypes.get_errno(), f"system call {number}: {os.strerror(ctypes.get_errno())}")
    return int(result)
