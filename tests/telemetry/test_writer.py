import asyncio
import json
import os
import socket
import time

from proxy.telemetry import logging as logs
from proxy.telemetry.writer import GATHER_SECONDS, MAX_WAITING_BYTES, PIPE_BUF, Writer


def test_written_at_once_without_a_loop(pipe):
    read_end, write_end = pipe
    writer = Writer(write_end)
    writer.write("one")
    assert os.read(read_end, 100) == b"one\n"


def test_the_inherited_descriptor_is_left_blocking(pipe):
    _, write_end = pipe
    Writer(write_end).write("x")
    assert os.get_blocking(write_end)


async def test_gathered_with_a_loop(pipe):
    read_end, write_end = pipe
    os.set_blocking(read_end, False)
    writer = Writer(write_end)
    writer.attach(asyncio.get_running_loop())
    for number in range(10):
        writer.write(str(number))
    await asyncio.sleep(GATHER_SECONDS * 2)
    assert os.read(read_end, 100) == b"".join(b"%d\n" % number for number in range(10))
    writer.attach(None)


def test_pieces_are_whole_lines_and_fit_a_pipe(pipe, monkeypatch):
    writer = Writer(pipe[1])
    writer.loop = object()
    pieces = []
    monkeypatch.setattr(writer, "send", lambda piece: pieces.append(piece) or len(piece))
    for _ in range(200):
        writer.lines.append("x" * 99)
    writer.flush()
    assert b"".join(pieces) == (b"x" * 99 + b"\n") * 200
    assert all(len(piece) <= PIPE_BUF and piece.endswith(b"\n") for piece in pieces)


def test_nobody_reads_then_somebody_does(pipe, logged):
    logged()
    read_end, write_end = pipe
    writer = Writer(write_end)
    logs.output.writer = writer
    writer.report = logs.report_dropped
    line = "x" * 999
    begun = time.monotonic()
    for _ in range(3000):
        writer.write(line)
    assert time.monotonic() - begun < 2.0
    assert writer.waiting_bytes <= MAX_WAITING_BYTES
    assert writer.dropped > 1000
    os.set_blocking(read_end, False)
    received = b""
    for _ in range(1000):
        writer.flush()
        try:
            received += os.read(read_end, 1 << 20)
        except BlockingIOError:
            break
    lines = received.decode().splitlines()
    report = json.loads(lines.pop())
    assert (report["event"], report["count"]) == ("log lines dropped", writer.dropped)
    assert set(lines) == {line}
    assert len(lines) + writer.dropped == 3000


def test_reader_gone(pipe):
    read_end, write_end = pipe
    writer = Writer(write_end)
    os.close(read_end)
    writer.write("into the void")
    assert writer.waiting_bytes == 0


def test_socket_that_nobody_reads():
    left, right = socket.socketpair()
    with left, right:
        writer = Writer(left.fileno())
        for _ in range(5000):
            writer.write("x" * 999)
        assert left.getblocking()
        assert writer.dropped
        assert right.recv(1000) == b"x" * 999 + b"\n"
        writer.socket.close()


def test_file_keeps_its_offset(tmp_path):
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(b"before\n")
        file.flush()
        Writer(file.fileno()).write("after")
    assert path.read_bytes() == b"before\nafter\n"


def test_anything_can_be_encoded(pipe):
    read_end, write_end = pipe
    Writer(write_end).write("\ud800")
    assert os.read(read_end, 100) == b"\\ud800\n"


def test_what_waits_is_written_once_though_the_process_forks(pipe):
    read_end, write_end = pipe
    writer = Writer(write_end)
    writer.loop = object()
    writer.lines.append("parent's")
    pid = os.fork()
    if pid == 0:
        writer.forget()
        writer.lines.append("child's")
        writer.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    writer.flush()
    assert os.read(read_end, 100) == b"child's\nparent's\n"
