"""A filter of system calls: what Landlock does not cover, and a connector does not need.

A connector talks to the world through one TCP connection to the load's proxy. So the filter refuses every other socket: local sockets of databases, raw
packets, UDP, MPTCP. It refuses TCP Fast Open, which connects where Landlock does not look, and `io_uring`, which opens sockets unseen. It refuses kernel
keys, shared memory of System V, and changes of other processes. Only the standard library is imported, because the supervisor imports this module.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence
from typing import NamedTuple

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 38, 22, 24
_MODE_FILTER = 2
_AF_INET, _AF_INET6, _SOCK_STREAM, _TYPE_MASK, _IPPROTO_TCP, _MSG_FASTOPEN = 2, 10, 1, 0xF, 6, 0x20000000
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
# Operations of the filter: load a word, compare, mask, return.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
# Offsets in `struct seccomp_data`: the number, the architecture, and the low half of each argument on a little-endian machine.
_NUMBER, _ARCHITECTURE = 0, 4
_ARGUMENTS = (16, 24, 32, 40)
_CAPABILITIES = 64


Step = tuple[int, int, int, int]


class _Machine(NamedTuple):
    """System call numbers of one architecture.

    Args:
        code: `AUDIT_ARCH_*`, for the filter's own check.
        foreign: the first number of another calling convention on the same machine; 0 without one.
        sending: calls that send, and the argument that has their flags.
        own_only: calls whose first argument is a process, refused for any but the caller (0).
    """

    code: int
    foreign: int
    socket: int
    socketpair: int
    sending: tuple[tuple[int, int], ...]
    own_only: tuple[int, ...]
    refused: tuple[int, ...]


# sending: sendto, sendmsg, sendmmsg. own_only: prlimit64, sched_setaffinity.
# refused, in order: add_key, request_key, keyctl; shmget, shmat, shmctl; msgget, msgsnd, msgrcv, msgctl; semget, semop, semctl, semtimedop.
# Then three of io_uring; bpf, perf_event_open; ioprio_set, sched_setparam, sched_setscheduler, sched_setattr, setpriority.
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        0x40000000,
        socket=41,
        socketpair=53,
        sending=((44, 3), (46, 2), (307, 3)),
        own_only=(302, 203),
        refused=(248, 249, 250, 29, 30, 31, 68, 69, 70, 71, 64, 65, 66, 220, 425, 426, 427, 321, 298, 251, 142, 144, 314, 141),
    ),
    "aarch64": _Machine(
        0xC00000B7,
        0,
        socket=198,
        socketpair=199,
        sending=((206, 3), (211, 2), (269, 3)),
        own_only=(261, 122),
        refused=(217, 218, 219, 194, 196, 195, 186, 189, 188, 187, 190, 193, 191, 192, 425, 426, 427, 280, 241, 30, 118, 119, 274, 140),
    ),
}


def is_supported() -> bool:
    """Whether this module has the numbers of the running machine."""
    return platform.machine() in _MACHINES


def drop_privileges() -> None:
    """Give up all capabilities, also those of root, and the way to gain them by running a program.

    Raises:
        OSError: the kernel refuses.
    """
    library = ctypes.CDLL(None, use_errno=True)
    _check(library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    for capability in range(_CAPABILITIES):
        # Refused without root, which has nothing to drop; not valid beyond the kernel's last capability.
        library.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def restrict() -> None:
    """Install the filter, for this process and all its descendants, for good.

    Raises:
        OSError: the kernel refuses, or the machine's numbers are not known.
    """
    if not is_supported():
        raise OSError(errno.ENOSYS, f"system calls of {platform.machine()} are not known")
    program = _build_program(_MACHINES[platform.machine()])
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    # `struct sock_fprog`: a count, padding, and a pointer.
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(instructions)))
    _check(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(header), 0, 0))


def _build_program(machine: _Machine) -> Sequence[Step]:
    """Build the filter. A step is an operation, how many steps to skip if true and if false, and an operand."""
    is_stream = [(_LOAD, 0, 0, _ARGUMENTS[1]), (_AND, 0, 0, _TYPE_MASK), (_EQUAL, 1, 0, _SOCK_STREAM), (_RETURN, 0, 0, _REFUSE)]
    is_internet = [(_LOAD, 0, 0, _ARGUMENTS[0]), (_EQUAL, 2, 0, _AF_INET), (_EQUAL, 1, 0, _AF_INET6), (_RETURN, 0, 0, _REFUSE)]
    is_tcp = [(_LOAD, 0, 0, _ARGUMENTS[2]), (_EQUAL, 2, 0, 0), (_EQUAL, 1, 0, _IPPROTO_TCP), (_RETURN, 0, 0, _REFUSE)]
    program = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, machine.code), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if machine.foreign:
        program += [(_AT_LEAST, 0, 1, machine.foreign), (_RETURN, 0, 0, _KILL)]
    for number in machine.refused:
        program += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    for number in machine.own_only:
        program += _judge(number, [(_LOAD, 0, 0, _ARGUMENTS[0]), (_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _REFUSE)])
    for number, flags in machine.sending:
        program += _judge(number, [(_LOAD, 0, 0, _ARGUMENTS[flags]), (_ANY_BIT, 0, 1, _MSG_FASTOPEN), (_RETURN, 0, 0, _REFUSE)])
    program += _judge(machine.socketpair, is_stream)
    program += _judge(machine.socket, [*is_internet, *is_stream, *is_tcp])
    return [*program, (_RETURN, 0, 0, _ALLOW)]


def _judge(number: int, steps: Sequence[Step]) -> Sequence[Step]:
    """Apply steps to one system call, and allow it if they do not refuse it."""
    return [(_EQUAL, 0, len(steps) + 1, number), *steps, (_RETURN, 0, 0, _ALLOW)]


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
