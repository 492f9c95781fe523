"""A parent for HAProxy that starts it again when it is killed, in front of which Ray Serve notices nothing.

    python -IS haproxy_supervisor.py BINARY ARGUMENTS...

Serve starts HAProxy, asks its admin socket who is there, and replaces it by a new one with ``-sf`` and ``-x``. A killed
one costs it three health checks and the replacement of an actor, whose first HAProxy knows no backends and answers 404
until the controller has told it of them. Here, the process that Serve started stays, HAProxy is its child, and a killed
child is replaced at once with the configuration that it had.

* The admin socket is this process's: it passes commands on to that of the child, and answers ``show info`` with its own
  process id, which is the one that Serve knows.
* ``-sf`` and ``-x`` name processes like this one: their children are meant.
* ``SIGUSR1`` (finish, then end) and ``SIGTERM`` go to the child; a child that was told to end is not replaced. When
  this process is killed its child ends too, as Serve expects of what it kills.
* A child that ends by itself is not replaced: its exit status is passed on.
* Where Serve's actor is killed, HAProxy answers on; the first one of the next actor follows it as in a reload, and
  uses its configuration as long as it has heard of no server. Where no actor comes, or Ray has ended, it ends.

It runs without the package: only the standard library, so that it is up in some hundredths of a second.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

__all__ = ["Supervisor", "main"]

_POLL_S = 0.01
_ORPHAN_POLL_S = 0.2
_PATIENCE_S = 5.0
"""For an answer of HAProxy's admin socket; as long as Serve waits for one of this process."""

_ORPHAN_S = 10.0
"""How long HAProxy answers on without an actor; the next one takes about four seconds to come."""

_STABLE_S = 1.0
_GIVE_UP = 3
"""Children killed in a row before they were stable, after which Serve has to find something better."""

_PRCTL = ctypes.CDLL(None).prctl
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_KILL = int(signal.SIGKILL)
_STATS_SOCKET = re.compile(r"^(\s*stats socket )(\S+)", re.MULTILINE)
_SERVER = re.compile(r"^\s+server ", re.MULTILINE)
_OWN_PID = re.compile(rb"^Pid: \d+", re.MULTILINE)


def _split(arguments: Sequence[str]) -> tuple[list[str], list[int], str | None]:
    """What stays for every child, and for the first one only: whom it follows, and the socket that hands over."""
    kept: list[str] = []
    followed: list[int] = []
    handing = None
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "-sf":
            while rest and rest[0].isdigit():
                followed.append(int(rest.pop(0)))
        elif word == "-x":
            handing = rest.pop(0)
        else:
            kept.append(word)
    return kept, followed, handing


class Supervisor:
    """One HAProxy, kept alive.

    Args:
        binary: HAProxy's.
        arguments: as Serve gives them.

    Raises:
        ValueError: the configuration has no ``stats socket``.
    """

    def __init__(self, binary: str, arguments: Sequence[str]) -> None:
        kept, self._followed, self._handing = _split(arguments)
        config = Path(kept[kept.index("-f") + 1])
        found = _STATS_SOCKET.search(text := config.read_text())
        if found is None:
            raise ValueError(f"no stats socket in {config}")
        self._public = Path(found.group(2))
        self._pid, self._parent = os.getpid(), os.getppid()
        self._ray = _parent_of(self._parent)
        self._admin = self._own("admin")
        self._sweep(config)
        if not self._followed and (orphan := self._orphan()):
            self._followed, self._handing = [orphan], str(self._public)
            known = Path(f"{config}.{orphan}").read_text()
            text = text if _SERVER.search(text) else known
        # Its own copy: the next reload rewrites Serve's, whether or not it then succeeds.
        self._config = Path(f"{config}.{self._pid}")
        self._config.write_text(_STATS_SOCKET.sub(lambda m: m.group(1) + str(self._admin), text))
        kept[kept.index("-f") + 1] = str(self._config)
        self._command = [binary, *kept]
        self._child: subprocess.Popen[bytes] | None = None
        self._ending = False

    def run(self) -> int:
        """Keep HAProxy alive until it ends by itself or is told to.

        Returns:
            Its exit status.
        """
        os.setpgid(0, 0)  # Ray kills the group of a worker that has died
        signal.signal(signal.SIGUSR1, self._pass_on)
        signal.signal(signal.SIGTERM, self._pass_on)
        threading.Thread(target=self._end_alone, daemon=True).start()
        short_lives = 0
        try:
            child = self._start([*self._command, *self._takeover()])
            threading.Thread(target=self._serve_admin, daemon=True).start()
            while True:
                begun = time.monotonic()
                status = child.wait()
                if self._ending and status == -signal.SIGUSR1:
                    return 0  # it was told so twice, the second time when it was about to end
                short_lives = 0 if time.monotonic() - begun > _STABLE_S else short_lives + 1
                if status >= 0 or self._ending or short_lives >= _GIVE_UP:
                    return status if status >= 0 else 128 - status
                child = self._start(self._command)
        finally:
            for path in (self._config, self._admin, self._own("child")):
                path.unlink(missing_ok=True)

    def _own(self, what: str, pid: int = 0) -> Path:
        # Short: the path of a socket may have 97 characters, in HAProxy.
        return self._public.with_name(f"{pid or self._pid}.{what[0]}")

    def _takeover(self) -> list[str]:
        """The arguments that name whom the first child follows."""
        children = [str(self._child_of(pid)) for pid in self._followed]
        if not children:
            return []
        handing = self._handing
        if handing is not None and (admin := self._own("admin", self._followed[0])).exists():
            handing = str(admin)
        return [*([] if handing is None else ["-x", handing]), "-sf", *children]

    def _child_of(self, pid: int) -> int:
        try:
            return int(self._own("child", pid).read_text())
        except (OSError, ValueError):
            return pid

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        # What runs before the exec takes no lock, so that threads do not matter.
        child = subprocess.Popen(command, preexec_fn=_die_with_parent)  # noqa: PLW1509
        self._child = child
        self._own("child").write_text(str(child.pid))
        if self._ending:  # told so meanwhile
            child.send_signal(signal.SIGUSR1)
        return child

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._ending = True
        if self._child is not None:
            self._child.send_signal(number)

    def _serve_admin(self) -> None:
        """Take the public admin socket once the child answers; tell those whom it follows that they are followed."""
        while _ask(self._admin, b"show info\n") is None:
            time.sleep(_POLL_S)
        listener = socket.socket(socket.AF_UNIX)
        fresh = self._own("listener")
        fresh.unlink(missing_ok=True)
        listener.bind(str(fresh))
        fresh.chmod(0o666)
        listener.listen(64)
        fresh.replace(self._public)
        for pid in self._followed:
            if self._own("child", pid).exists():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR1)
        while True:
            caller, _ = listener.accept()
            threading.Thread(target=self._answer, args=(caller,), daemon=True).start()

    def _answer(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(OSError):  # who has hung up needs no answer
            caller.settimeout(_PATIENCE_S)
            command = b""
            while not command.endswith(b"\n") and (more := caller.recv(4096)):
                command += more
            answer, deadline = None, time.monotonic() + _PATIENCE_S
            while (answer := _ask(self._admin, command)) is None and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            if answer is not None:
                caller.sendall(_OWN_PID.sub(b"Pid: %d" % self._pid, answer))

    def _orphan(self) -> int | None:
        """The process like this one that has the public socket, though Serve does not say so."""
        answer = _ask(self._public, b"show info\n") or b""
        found = _OWN_PID.search(answer)
        pid = int(found.group().split()[1]) if found else 0
        return pid if self._own("child", pid).exists() else None

    def _end_alone(self) -> None:
        """End when the process that started this one has ended, and nobody follows."""
        while os.getppid() == self._parent:
            time.sleep(_ORPHAN_POLL_S)
        deadline = time.monotonic() + _ORPHAN_S
        while time.monotonic() < deadline and _parent_of(self._ray):  # without Ray nobody will come
            time.sleep(_ORPHAN_POLL_S)
        os.kill(self._pid, signal.SIGTERM)

    def _sweep(self, config: Path) -> None:
        """Remove what killed processes of this kind have left."""
        for path in self._public.parent.glob("*.c"):
            if path.stem.isdigit() and not Path("/proc", path.stem).exists():
                for left in (path, path.with_suffix(".a"), path.with_suffix(".l")):
                    left.unlink(missing_ok=True)
                Path(f"{config}.{path.stem}").unlink(missing_ok=True)


def _parent_of(pid: int) -> int:
    """The parent's id; 0 where the process has ended."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return 0
    return 0 if state == "Z" else int(parent)


def _ask(socket_path: Path, command: bytes) -> bytes | None:
    """The answer of an admin socket; None where nobody listens."""
    with socket.socket(socket.AF_UNIX) as admin:
        admin.settimeout(_PATIENCE_S)
        try:
            admin.connect(str(socket_path))
            admin.sendall(command)
            answer = b""
            while more := admin.recv(65536):
                answer += more
        except OSError:
            return None
    return answer or None


def _die_with_parent() -> None:
    _PRCTL(_PARENT_DEATH_SIGNAL, _KILL)


def main(arguments: Sequence[str]) -> int:
    """Run ``arguments[0]`` with the rest of them, and keep it alive."""
    if "-f" not in arguments:  # a question, such as -v
        os.execv(arguments[0], list(arguments))
    return Supervisor(arguments[0], arguments[1:]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
