"""A program of its own: becomes another user that may still pass through closed folders, then the program it is given.

Arguments: user id, group id, program, its arguments. It must be started by root, on Linux. What it keeps of root is
CAP_DAC_OVERRIDE alone, as an ambient capability (capabilities(7)), so that PostgreSQL, which looks at the user id,
agrees to run in a folder below root's home. Whoever controls such a server can read root's files: give it a folder that
others may pass through where that matters. It runs apart from the caller, as code between fork and exec is not safe
among threads.
"""

import ctypes
import os
import sys

_PR_GET_SECUREBITS, _PR_SET_SECUREBITS = 27, 28
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def become(uid: int, gid: int) -> None:
    """Changes this process to the user and group, keeping CAP_DAC_OVERRIDE over the next exec. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int) -> None:
        if result != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    # Without it access(2), by which PostgreSQL looks for its own programs, leaves the capability out of account.
    bits = libc.prctl(_PR_GET_SECUREBITS, 0, 0, 0, 0)
    check(libc.prctl(_PR_SET_SECUREBITS, bits | _SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Two records of effective, permitted, inheritable: capabilities 0 to 31, then 32 to 63.
    wanted = 1 << _CAP_DAC_OVERRIDE
    check(libc.capset(header, (ctypes.c_uint32 * 6)(wanted, wanted, wanted, 0, 0, 0)))
    check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0))


if __name__ == "__main__":
    become(int(sys.argv[1]), int(sys.argv[2]))
    os.execv(sys.argv[3], sys.argv[3:])  # noqa: S606 - the caller's own command, without a shell
