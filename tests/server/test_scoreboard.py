import os
import time

from proxy.server.scoreboard import Scoreboard, WorkerRecord, WorkerState


def test_what_is_written_is_read_in_another_process():
    scoreboard = Scoreboard(2)
    record = WorkerRecord(1, 4242, WorkerState.SERVING, 3, 12.5)
    pid = os.fork()
    if pid == 0:
        scoreboard.write(record)
        scoreboard.draining = True
        os._exit(0)
    os.waitpid(pid, 0)
    assert scoreboard.worker(1) == record
    assert scoreboard.worker(0) == WorkerRecord(0, 0, WorkerState.DEAD, 0, 0.0)
    assert scoreboard.draining


def test_a_heartbeat_is_read_in_another_process_and_moves_no_other():
    scoreboard = Scoreboard(3)
    scoreboard.write(WorkerRecord(2, 4242, WorkerState.SERVING, 3, 12.5))
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        scoreboard.beat(1)
        os._exit(0)
    os.waitpid(pid, 0)
    assert begun <= scoreboard.heartbeat(1) <= time.monotonic()
    assert (scoreboard.heartbeat(0), scoreboard.heartbeat(2)) == (0.0, 0.0)
    assert scoreboard.worker(2) == WorkerRecord(2, 4242, WorkerState.SERVING, 3, 12.5)
