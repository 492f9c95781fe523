"""HAProxy below its supervisor, started, reloaded and killed as Ray Serve does it."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rlaas.errors import ConfigurationError
from rlaas.serving import haproxy_supervisor
from rlaas.serving.haproxy import write_launcher

SUPERVISOR = Path(haproxy_supervisor.__file__).resolve()

CONFIG = """global
    stats socket {admin} mode 666 level admin expose-fd listeners
    hard-stop-after 5s
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    server one 127.0.0.1:{back}
"""


class _Backend(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


@pytest.fixture
def backend() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Backend)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


class Proxy:
    """What Ray Serve's HAProxyApi does, in short."""

    def __init__(self, folder: Path, back: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.admin = folder / "admin.sock"
        self.config = folder / "haproxy.cfg"
        self.config.write_text(CONFIG.format(admin=self.admin, port=self.port, back=back))
        self.launcher = write_launcher(folder / "haproxy")
        self.spawned: list[subprocess.Popen[bytes]] = []

    def command(self, *more: str) -> list[str]:
        return [str(self.launcher), "-db", "-f", str(self.config), "-dR", *more]

    def below_an_actor(self) -> tuple[subprocess.Popen[bytes], int]:
        """Started by a process that may die; that one, and the id of the one that it would leave behind."""
        actor = subprocess.Popen(["/bin/sh", "-c", f"{shlex.join(self.command())} & wait"], stderr=subprocess.DEVNULL)
        until(self.answers)
        until(self.running_pid)
        orphan = self.running_pid()
        assert orphan
        return actor, orphan

    def spawn(self, *more: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self.command(*more), stderr=subprocess.DEVNULL)
        self.spawned.append(process)
        until(lambda: self.running_pid() == process.pid or process.poll() is not None)
        return process

    def reload(self) -> subprocess.Popen[bytes]:
        return self.spawn("-sf", str(self.spawned[-1].pid), "-x", str(self.admin))

    def running_pid(self) -> int | None:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.settimeout(5)
            try:
                admin.connect(str(self.admin))
                admin.sendall(b"show info\n")
                text = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
            except OSError:
                return None
        return next((int(line.split(":")[1]) for line in text.splitlines() if line.startswith("Pid:")), None)

    def answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


@pytest.fixture
def proxy(tmp_path_factory: pytest.TempPathFactory, backend: int) -> Iterator[Proxy]:
    proxy = Proxy(tmp_path_factory.mktemp("h"), backend)
    yield proxy
    for process in proxy.spawned:
        process.kill()
        process.wait()


def until(condition: Callable[[], object], seconds: float = 20) -> float:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "it did not come true"
        time.sleep(0.005)
    return time.monotonic() - begun


def until_ended(pid: int) -> None:
    until(lambda: ended(pid))


def child(pid: int) -> int:
    """Its one child; 0 while there is none."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(found) <= 1
    return int(found[0]) if found else 0


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_killed_haproxy_is_back_at_once_behind_the_same_process(proxy: Proxy) -> None:
    supervisor = proxy.spawn()
    assert proxy.answers()
    for _ in range(3):
        before = child(supervisor.pid)
        time.sleep(1.1)  # what dies sooner, over and over, is left to Serve
        os.kill(before, signal.SIGKILL)
        until_ended(before)
        assert until(proxy.answers) < 2
        assert child(supervisor.pid) != before
        assert proxy.running_pid() == supervisor.pid


def test_a_reload_takes_over_without_a_failed_request_and_ends_the_old_one(proxy: Proxy) -> None:
    first = proxy.spawn()
    stop = threading.Event()
    failures: list[float] = []
    asked: list[float] = []

    def ask() -> None:
        while not stop.is_set():
            (asked if proxy.answers() else failures).append(time.monotonic())

    client = threading.Thread(target=ask)
    client.start()
    second = proxy.reload()
    os.kill(before := child(second.pid), signal.SIGKILL)  # a successor can be killed, and followed, too
    until(lambda: child(second.pid) not in {0, before} and proxy.running_pid() == second.pid and proxy.answers())
    killed = len(failures)
    third = proxy.reload()
    time.sleep(0.2)
    stop.set()
    client.join()
    assert first.wait(10) == 0
    assert second.wait(10) == 0
    assert third.poll() is None
    assert proxy.running_pid() == third.pid
    assert len(asked) > 20
    assert len(failures) == killed
    assert sorted(path.name for path in proxy.admin.parent.glob("[0-9]*.*")) == sorted(
        f"{third.pid}.{what}" for what in "ac"
    )


def test_killing_the_supervisor_ends_haproxy_as_serve_expects(proxy: Proxy) -> None:
    supervisor = proxy.spawn()
    below = child(supervisor.pid)
    supervisor.kill()
    supervisor.wait()
    until(lambda: ended(below))
    assert not proxy.answers()
    follower = proxy.spawn()  # and what it left is removed
    assert proxy.answers()
    assert not list(proxy.admin.parent.glob(f"*{supervisor.pid}*"))
    assert child(follower.pid)


def test_what_serves_on_without_an_actor_is_followed_by_the_next_with_the_servers_that_it_knew(proxy: Proxy) -> None:
    actor, orphan = proxy.below_an_actor()
    actor.kill()
    actor.wait()
    assert proxy.answers()
    # The next actor has not heard of any server.
    lines = proxy.config.read_text().splitlines()
    proxy.config.write_text("\n".join(line for line in lines if not line.strip().startswith("server")) + "\n")
    failures: list[float] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            if not proxy.answers():
                failures.append(time.monotonic())

    client = threading.Thread(target=ask)
    client.start()
    follower = proxy.spawn()
    until_ended(orphan)
    stop.set()
    client.join()
    assert not failures
    assert proxy.answers()
    assert proxy.running_pid() == follower.pid
    proxy.reload()  # now it says that there is none
    until(lambda: not proxy.answers())


def test_without_an_actor_and_a_follower_it_ends(proxy: Proxy) -> None:
    quick = proxy.launcher.read_text().replace(str(SUPERVISOR), str(patched := proxy.admin.with_name("quick.py")))
    patched.write_text(SUPERVISOR.read_text().replace("_ORPHAN_S = 10.0", "_ORPHAN_S = 0.1"))
    proxy.launcher.write_text(quick)
    actor, orphan = proxy.below_an_actor()
    below = child(orphan)
    actor.kill()
    actor.wait()
    until_ended(orphan)
    until_ended(below)
    assert not proxy.answers()


def test_what_ends_by_itself_or_is_told_to_stays_ended(proxy: Proxy) -> None:
    supervisor = proxy.spawn()
    supervisor.send_signal(signal.SIGUSR1)
    assert supervisor.wait(10) == 0
    proxy.config.write_text(proxy.config.read_text() + "nonsense here\n")
    assert proxy.spawn().wait(10) == 1


def test_haproxy_that_cannot_stay_is_left_to_serve(proxy: Proxy) -> None:
    supervisor = proxy.spawn()
    for _ in range(3):
        until(lambda: supervisor.poll() is not None or proxy.answers())
        os.kill(child(supervisor.pid), signal.SIGKILL)
    assert supervisor.wait(10) == 128 + signal.SIGKILL


def test_other_questions_go_straight_to_haproxy(tmp_path: Path) -> None:
    launcher = write_launcher(tmp_path / "haproxy")
    done = subprocess.run([str(launcher), "-v"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("HAProxy version")


def test_without_haproxy_there_is_nothing_to_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="no HAProxy"):
        write_launcher(tmp_path / "haproxy")
