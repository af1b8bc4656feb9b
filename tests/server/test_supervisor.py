"""Real processes on loopback."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from proxy.config.model import Config
from proxy.server.private_directory import make_private_directory
from proxy.server.silence import longest_silence
from proxy.server.supervisor import backoff
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
RUN = Path(__file__).with_name("run_supervisor.py")


class Gateway:
    """A running supervisor with its processes."""

    def __init__(self, workers=1, parts=None, environ=None, demo=False, **config):
        self.config = {
            "listeners": [{"address": "127.0.0.1:0"}],
            "clusters": [{"name": "service", "endpoints": ["127.0.0.1:9"]}],
            "routes": [{"match": {"prefix": "/"}, "cluster": "service"}],
            "admin": {"address": "127.0.0.1:0"},
            "workers": workers,
            "shutdown_grace": "5s",
            **config,
        }
        self.process = subprocess.Popen(
            [sys.executable, str(RUN), json.dumps(self.config), json.dumps(parts or {}), *(["demo"] * demo)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": "/tmp", **(environ or {})},
            text=True,
            start_new_session=True,  # a process group of its own, to be signalled as a whole
        )
        self.log = []
        self.reader = threading.Thread(target=self.read_log, daemon=True)
        self.reader.start()

    def read_log(self):
        self.log.extend(self.process.stderr)

    def wait_ready(self):
        line = self.process.stdout.readline()
        found = re.fullmatch(r"serving on http://127\.0\.0\.1:(\d+); admin on http://127\.0\.0\.1:(\d+)\n", line)
        assert found, (line, self.log)
        self.port, self.admin = map(int, found.groups())
        return self

    def get(self, path, port=None, timeout=10, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read()

    def worker_pids(self):
        return [worker["pid"] for worker in json.loads(self.get("/ready", self.admin)[1])["workers"]]

    def events(self, name):
        return [line for line in map(json.loads, self.log) if line["event"] == name]

    def wait(self, timeout=10):
        status = self.process.wait(timeout)
        self.reader.join(5)
        return status

    def close(self):
        if self.process.poll() is None:
            self.process.kill()  # its children are killed by the kernel
        self.process.wait()
        self.reader.join(5)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def start():
    started = []

    def start(*args, **options):
        started.append(Gateway(*args, **options))
        return started[-1]

    yield start
    for gateway in started:
        gateway.close()


def eventually(check, seconds=5.0):
    """Wait until `check()` is true; gives how long it took."""
    begun = time.monotonic()
    while not check():
        assert time.monotonic() - begun < seconds, "did not come true in time"
        time.sleep(0.01)
    return time.monotonic() - begun


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_serves_and_stops(start):
    gateway = start().wait_ready()
    status, body = gateway.get("/pid")
    assert status == 200
    pids = gateway.worker_pids()
    assert [int(body)] == pids
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert not alive(pids[0])
    assert not list(Path("/tmp").glob(f"penstock-{gateway.process.pid}-*"))


def test_supervisor_has_one_thread(start):
    gateway = start().wait_ready()
    assert len(list(Path(f"/proc/{gateway.process.pid}/task").iterdir())) == 1


def test_killed_worker_comes_back_and_serves_its_queue(start):
    gateway = start().wait_ready()
    [pid] = gateway.worker_pids()
    os.kill(pid, signal.SIGSTOP)  # nothing is accepted any more: connections wait in the slot's queue
    waiting = []
    for _ in range(5):
        sock = socket.create_connection(("127.0.0.1", gateway.port), timeout=5)
        sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        waiting.append(sock)
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    answers = [sock.recv(65536) for sock in waiting]
    assert time.monotonic() - killed < 1.0
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    for sock in waiting:
        sock.close()
    assert gateway.worker_pids() != [pid]
    [died] = gateway.events("process died")
    assert (died["process"], died["reason"]) == ("worker 0", "SIGKILL")
    assert b"penstock_worker_restarts_total 1.0" in gateway.get("/metrics", gateway.admin)[1]


def test_restarts_back_off(start):
    gateway = start().wait_ready()
    for _ in range(3):
        [pid] = gateway.worker_pids()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda gone=pid: gateway.worker_pids() not in ([gone], [None]))
        gateway.get("/pid")
    assert [event["restart_in_s"] for event in gateway.events("process died")] == [0.0, 0.1, 0.2]


def test_backoff_doubles_up_to_five_seconds():
    waits = [backoff(deaths) for deaths in range(10)]
    assert waits == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_sigterm_lets_a_slow_stream_finish(start):
    gateway = start().wait_ready()
    sock = socket.create_connection(("127.0.0.1", gateway.port), timeout=5)
    sock.sendall(b"GET /slow?seconds=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    read_until(sock, b"begun")
    gateway.process.send_signal(signal.SIGTERM)
    eventually(lambda: not connects(gateway.port), 0.5)  # nobody listens while the stream goes on
    assert gateway.process.poll() is None
    assert gateway.get("/ready", gateway.admin)[0] == 503
    rest = b"".join(iter(lambda: sock.recv(65536), b""))
    sock.close()
    assert b"ended" in rest
    assert gateway.wait() == 0


def read_until(sock, text):
    received = b""
    while text not in received:
        received += sock.recv(65536)
        assert received


def connects(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def begin_slow(gateway, seconds):
    """A stream in flight: its first bytes have arrived."""
    sock = socket.create_connection(("127.0.0.1", gateway.port), timeout=5)
    sock.sendall(b"GET /slow?seconds=%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % seconds)
    read_until(sock, b"begun")
    return sock


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_lets_a_slow_stream_finish(start, number, times):
    """A service manager and a terminal signal every process; `timeout` signals its child and then the group as well."""
    port = free_port()
    clusters = [{"name": "service", "endpoints": [f"127.0.0.1:{port}"]}]
    gateway = start(workers=2, demo=True, parts={"demo": "proxy.demo:run"}, clusters=clusters).wait_ready()
    sock = begin_slow(gateway, 1)
    if times == 2:
        gateway.process.send_signal(number)
    os.killpg(gateway.process.pid, number)
    eventually(lambda: not connects(gateway.port), 0.5)
    time.sleep(0.2)
    assert gateway.get("/ready", gateway.admin)[0] == 503
    assert gateway.get("/", port)[0] == 200  # the streams may need it
    rest = b"".join(iter(lambda: sock.recv(65536), b""))
    sock.close()
    assert b"ended" in rest
    assert gateway.wait() == 0
    assert not gateway.events("stopping now")
    assert not gateway.events("process died")


def test_sigterm_at_a_worker_never_means_now(start):
    gateway = start().wait_ready()
    sock = begin_slow(gateway, 1)
    [pid] = gateway.worker_pids()
    for _ in range(5):
        os.kill(pid, signal.SIGTERM)
        time.sleep(0.05)
    assert b"ended" in b"".join(iter(lambda: sock.recv(65536), b""))
    sock.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_stops_at_once(start, number):
    gateway = start().wait_ready()
    sock = socket.create_connection(("127.0.0.1", gateway.port), timeout=5)
    sock.sendall(b"GET /slow?seconds=30 HTTP/1.1\r\nHost: x\r\n\r\n")
    sock.recv(65536)
    gateway.process.send_signal(number)
    eventually(lambda: gateway.events("draining"))
    time.sleep(0.2)
    begun = time.monotonic()
    gateway.process.send_signal(number)
    assert gateway.wait() == 0
    assert time.monotonic() - begun < 1.0
    sock.close()


def test_grace_ends_streams(start):
    gateway = start(shutdown_grace="300ms").wait_ready()
    sock = socket.create_connection(("127.0.0.1", gateway.port), timeout=5)
    sock.sendall(b"GET /slow?seconds=30 HTTP/1.1\r\nHost: x\r\n\r\n")
    sock.recv(65536)
    begun = time.monotonic()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert 0.25 < time.monotonic() - begun < 2.0
    sock.close()


def test_a_hung_worker_is_killed_when_the_grace_is_over(start):
    gateway = start(shutdown_grace="100ms").wait_ready()
    os.kill(gateway.worker_pids()[0], signal.SIGSTOP)
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert gateway.events("killed what did not stop in time")


def test_a_worker_whose_loop_stands_still_is_killed_and_replaced(start):
    gateway = start(environ={"SILENT_SECONDS": "4"}).wait_ready()
    [pid] = gateway.worker_pids()
    time.sleep(4.5)
    assert gateway.worker_pids() == [pid]  # one that is idle is heard
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        gateway.get("/block?seconds=60", timeout=20)
    eventually(lambda: gateway.worker_pids() not in ([pid], [None]))
    assert int(gateway.get("/pid")[1]) != pid
    [hung] = gateway.events("worker hangs: killed")
    assert (hung["process"], hung["pid"]) == ("worker 0", pid)
    [died] = gateway.events("process died")
    assert (died["process"], died["reason"]) == ("worker 0", "SIGKILL")
    assert b"penstock_worker_restarts_total 1.0" in gateway.get("/metrics", gateway.admin)[1]


def test_a_short_stop_of_the_loop_is_forgiven(start):
    gateway = start(environ={"SILENT_SECONDS": "5"}).wait_ready()
    [pid] = gateway.worker_pids()
    gateway.get("/block?seconds=1.5")
    time.sleep(2)
    assert gateway.worker_pids() == [pid]


@pytest.mark.parametrize(("phase", "environ"), [("starting", {"STUB_STARTS_IN": "3"}), ("draining", {})])
def test_who_starts_or_drains_may_be_silent(start, phase, environ):
    gateway = start(environ={"SILENT_SECONDS": "2", **environ}).wait_ready()
    if phase == "draining":
        sock = socket.create_connection(("127.0.0.1", gateway.port), timeout=5)
        sock.sendall(b"GET /block?seconds=3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        time.sleep(0.1)
        gateway.process.send_signal(signal.SIGTERM)
        assert b"200 OK" in sock.recv(65536)
        sock.close()
        assert gateway.wait() == 0
    assert not gateway.events("worker hangs: killed")


def test_how_long_a_worker_may_be_silent_allows_for_its_filters(tmp_path):
    def allowed(**limits):
        base = {"listeners": [{"address": "127.0.0.1:0"}], "clusters": [], "routes": []}
        filters = [{"name": "f", "wasm": str(tmp_path / "f.wasm"), "limits": limits}]
        return longest_silence(Config.model_validate({**base, "filters": filters}))

    assert (allowed(), allowed(start_deadline=30)) == (10.0, 150.0)


def test_children_die_with_the_supervisor(start):
    gateway = start(workers=2).wait_ready()
    children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read_text().split()
    assert len(children) == 4, "workers, admin, watcher"
    gateway.process.kill()
    eventually(lambda: not any(map(alive, children)))


def test_directory_of_a_killed_supervisor_is_removed_by_the_next(start):
    first = start().wait_ready()
    [left] = Path("/tmp").glob(f"penstock-{first.process.pid}-*")
    assert left.stat().st_mode & 0o777 == 0o700
    first.process.kill()
    first.process.wait()
    second = start().wait_ready()
    assert not left.exists()
    assert list(Path("/tmp").glob(f"penstock-{second.process.pid}-*"))


def test_counts_of_two_workers_are_summed(start):
    gateway = start(workers=2).wait_ready()
    served = {gateway.get("/pid")[1] for _ in range(40)}
    assert len(served) == 2
    assert requests_total(gateway) == 40


def requests_total(gateway):
    text = gateway.get("/metrics", gateway.admin)[1].decode()
    found = re.search(r'penstock_requests_total\{cluster="service",code="200",route="all"\} (\S+)', text)
    return float(found[1])


def test_counters_survive_a_worker(start):
    gateway = start().wait_ready()
    for _ in range(5):
        gateway.get("/pid")
    assert requests_total(gateway) == 5
    [pid] = gateway.worker_pids()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gateway.worker_pids() not in ([pid], [None]))
    assert requests_total(gateway) == 5
    gateway.get("/pid")
    assert requests_total(gateway) == 6


def test_counters_survive_the_admin_process(start):
    gateway = start().wait_ready()
    gateway.get("/pid")
    assert requests_total(gateway) == 1
    [pid] = gateway.worker_pids()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: gateway.worker_pids() not in ([pid], [None]))
    assert requests_total(gateway) == 1
    [admin] = [event["pid"] for event in gateway.events("process started") if event["process"] == "admin"]
    os.kill(admin, signal.SIGKILL)
    assert requests_total(gateway) == 1


def test_admin_answers_while_the_worker_is_blocked(start):
    gateway = start().wait_ready()
    gateway.get("/pid")
    assert requests_total(gateway) == 1
    sock = socket.create_connection(("127.0.0.1", gateway.port), timeout=5)
    sock.sendall(b"GET /block?seconds=2 HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(0.05)
    begun = time.monotonic()
    assert requests_total(gateway) == 1
    assert time.monotonic() - begun < 1.0
    sock.close()


def test_ready_names_the_degraded_filter(start):
    gateway = start(workers=1).wait_ready()
    body = json.loads(gateway.get("/ready", gateway.admin)[1])
    assert (body["status"], body["filters"]["guard"]["state"]) == ("ready", "ready")
    gateway.get("/degrade")
    status, body = gateway.get("/ready", gateway.admin)
    body = json.loads(body)
    assert status == 200
    assert body["status"] == "degraded"
    assert body["filters"]["guard"] == {"state": "degraded", "reason": "fuel", "degraded_workers": [0]}


@pytest.mark.parametrize("workers", [1, 2])
def test_address_in_use(start, workers):
    first = start(workers=2).wait_ready()
    second = start(workers=workers, listeners=[{"address": f"127.0.0.1:{first.port}"}])
    assert second.wait() == 1
    assert second.log == [
        f"penstock: cannot listen on 127.0.0.1:{first.port}: address in use; "
        "stop what listens there, or write another address\n"
    ]


def test_admin_address_in_use(start):
    first = start().wait_ready()
    second = start(admin={"address": f"127.0.0.1:{first.admin}"})
    assert second.wait() == 1
    assert f"127.0.0.1:{first.admin}: address in use" in second.log[0]


def test_wrong_filter_exits_2(start):
    gateway = start(parts={"prepare": "stub_gateway:something_wrong"})
    assert gateway.wait() == 2
    assert gateway.log == ["penstock.yaml:3: filters[0].wasm: is not Wasm; write the path of a module\n"]


def test_workers_that_cannot_start_end_it(start):
    gateway = start(workers=2, environ={"STUB_FAILS": "1"})
    assert gateway.wait() == 1
    [failed, *_] = gateway.events("worker cannot start")
    assert "the filter does not load" in failed["exception"]


def test_demo_is_served_on_the_first_endpoint(start):
    port = free_port()
    clusters = [{"name": "service", "endpoints": [f"127.0.0.1:{port}"]}]
    gateway = start(demo=True, parts={"demo": "stub_gateway:serve_demo"}, clusters=clusters).wait_ready()
    assert gateway.process.stdout.readline() == f"try: curl -i http://127.0.0.1:{gateway.port}/\n"
    assert gateway.get("/", port) == (200, b"demo")
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.wait() == 0
    assert not connects(port)


def test_demo_address_in_use(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        clusters = [{"name": "service", "endpoints": [f"127.0.0.1:{port}"]}]
        gateway = start(demo=True, parts={"demo": "stub_gateway:serve_demo"}, clusters=clusters)
        assert gateway.wait() == 1
    assert f"127.0.0.1:{port}: address in use" in gateway.log[0]


def test_without_admin(start):
    gateway = start(admin=None)
    line = gateway.process.stdout.readline()
    assert re.fullmatch(r"serving on http://127\.0\.0\.1:\d+\n", line)


@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "> /dev/full"], ids=["closed", "full disk"])
def test_serves_without_standard_streams(streams: str, tmp_path: Path) -> None:
    """With one closed the first socket would be what the log is written to."""
    port = free_port()
    config = tmp_path / "c.yaml"
    config.write_text(f'listeners: [{{address: "127.0.0.1:{port}"}}]\nclusters: [{{name: s, endpoints: ["127.0.0.1:9"]}}]\n')
    with config.open("a") as file:
        file.write("routes: [{match: {prefix: /}, cluster: s}]\nadmin: null\n")
    command = f'exec "{sys.executable}" -m proxy run "{config}" {streams}'
    process = subprocess.Popen(["sh", "-c", command], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        status = 0
        for _ in range(200):
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request("GET", "/")
                status = connection.getresponse().status
                break
            time.sleep(0.1)
        assert status == 503
    finally:
        process.terminate()
        assert process.wait(20) == 0


def test_no_temporary_folder_is_told_with_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/none")
    with pytest.raises(OSError, match=r"^no temporary folder can be written to: No such file or directory; set TMPDIR to one"):
        make_private_directory(tmp_path / "c.yaml")
