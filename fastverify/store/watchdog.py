"""Keeps a server running for exactly as long as somebody holds the other end of standard input.

A script of its own, started as ``python -I -S watchdog.py <program> [<argument> ...]``; standard library only, so that
it is up in a few milliseconds. When standard input ends, because its owner closed it or died (even of SIGKILL), the
server is told to stop; when the server ends by itself, so does the watchdog.

Why a process, and not PR_SET_PDEATHSIG in the owner: that signal is sent when the *thread* that started the child ends,
and a library is started from whatever thread its user likes. The watchdog has one thread, so there the signal is sound;
it covers the one case that is left, the watchdog itself being killed.
"""

from __future__ import annotations

import os
import select
import signal
import sys

#: Seconds that the server has to write its files, once told to stop.
GRACE = 10.0
PR_SET_PDEATHSIG = 1
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(command: list[str]) -> int:
    """Run ``command`` until it ends or standard input does; return its exit status, as a shell would."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *STOP_SIGNALS):
        signal.signal(number, lambda *_: None)  # the wake-up pipe says all there is to say
    server = start(command)
    asked_to_stop = False
    while not asked_to_stop:
        ready, _, _ = select.select([0, woken], [], [])
        signals = os.read(woken, 64) if woken in ready else b""
        if (status := ended(server)) is not None:
            return status
        asked_to_stop = 0 in ready or any(number in signals for number in STOP_SIGNALS)
    os.kill(server, signal.SIGTERM)
    while (status := ended(server)) is None:
        if select.select([woken], [], [], GRACE)[0]:
            os.read(woken, 64)
        else:
            os.kill(server, signal.SIGKILL)
    return status


def start(command: list[str]) -> int:
    """Fork and execute ``command``, to be terminated by the kernel (of Linux) should this process die first."""
    set_parent_death_signal = None
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal = ctypes.CDLL(None).prctl
    watchdog = os.getpid()
    server = os.fork()
    if server:
        return server
    try:
        if set_parent_death_signal is not None:
            set_parent_death_signal(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == watchdog:  # else it died before the line above
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def ended(server: int) -> int | None:
    """The exit status of a server that is no more."""
    pid, status = os.waitpid(server, os.WNOHANG)
    if not pid:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
