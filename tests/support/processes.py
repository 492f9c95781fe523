"""Commands as a user runs them: a process of its own, its output, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

RLAAS = str(Path(sys.executable).with_name("rlaas"))
TESTS = Path(__file__).parent.parent


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(home: Path, **extra: str) -> dict[str, str]:
    """The environment of a command with its own home; tests' scenarios are importable in it and in its workers."""
    return {
        **{k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RLAAS_HOME")},
        "RLAAS_HOME": str(home),
        "PYTHONPATH": str(TESTS),
        "COLUMNS": "140",
        **extra,
    }


def start(arguments: list[str], home: Path, log: Path, **extra: str) -> subprocess.Popen[str]:
    """Start ``rlaas ...`` in a session of its own; stdout and stderr go to ``log``."""
    return subprocess.Popen(
        [RLAAS, *arguments],
        env=environment(home, **extra),
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str], log: Path, text: str, seconds: float = 180) -> None:
    """Wait until the log holds ``text``; fails with the log if the process ends or time is up."""
    deadline = time.monotonic() + seconds
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def interrupt(process: subprocess.Popen[str], with_signal: signal.Signals = signal.SIGINT, seconds: float = 90) -> int:
    """Signal the command as Ctrl-C (or a supervisor) does, and return its exit status."""
    process.send_signal(with_signal)
    return process.wait(seconds)


def processes_naming(text: str) -> list[str]:
    """Command lines of live processes that name ``text`` in their arguments or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_text()
            variables = (entry / "environ").read_text(errors="replace")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if state != "Z" and (text in command or text in variables):
            found.append(command.replace("\0", " ").strip())
    return found


def assert_gone(text: str, seconds: float = 20) -> None:
    """Every process that names ``text`` ends within ``seconds``."""
    deadline = time.monotonic() + seconds
    while left := processes_naming(text):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
