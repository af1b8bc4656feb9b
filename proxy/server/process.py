"""Forking a child of the supervisor, and what a child does first."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

from proxy.telemetry.logging import get_logger, output

log = get_logger("process")

PR_SET_PDEATHSIG = 1
STOP_NOW = signal.SIGUSR1
"""What the supervisor alone sends its children: end at once. SIGTERM may reach them from elsewhere and more than once (a
service manager, `timeout`), so it never means that. Unlike SIGQUIT it leaves no core where nobody handles it."""
EXIT_CRASH = 1
EXIT_START_FAILED = 3
"""A child's exit status when it could not start and its successor could not either: a filter that does not load ..."""

libc = ctypes.CDLL(None, use_errno=True)


def fork(body: Callable[[], int]) -> int:
    """Fork a child that runs `body` and exits with what it returns; gives the child's pid.

    The child ignores SIGINT and SIGHUP (a terminal sends them to all processes; the supervisor alone decides), has the default
    action of SIGTERM and STOP_NOW until it sets its own, and is killed when the supervisor dies, however that happens.
    """
    parent = os.getpid()
    output.writer.flush()
    sys.stdout.flush()
    # Held back until the child has left the supervisor's handlers and wakeup descriptor behind.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    status = EXIT_CRASH
    try:
        output.writer.forget()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        die_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        status = body()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else EXIT_CRASH
    except BaseException:
        log.critical("process failed", pid=os.getpid(), exc_info=True)
    finally:
        # Nothing of the supervisor's (atexit functions, buffers, temporary directories) is the child's to clean up.
        try:
            output.writer.attach(None)
            sys.stdout.flush()
        finally:
            os._exit(status)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies (prctl(2) PR_SET_PDEATHSIG); exit if it has already."""
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(EXIT_CRASH)


def has_terminal() -> bool:
    """Whether there is a controlling terminal that has not hung up."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
