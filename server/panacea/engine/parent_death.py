"""Ends a process with the one that started it, also if it is stopped or stuck."""

import ctypes
import os
import signal
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """From now on the kernel kills this process when `parent` has died. On Linux; elsewhere it does nothing.

    The kernel watches the thread that started this process. A program that starts an engine must therefore not end that
    thread earlier. It is the thread of the event loop.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # a libc without prctl
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)
