from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.admin.aggregate import Aggregate
from proxy.telemetry.metrics import Registry


def snapshot(count, open_connections=0):
    registry = Registry()
    registry.counter("penstock_x_total", "X").labels().inc(count)
    registry.gauge("penstock_open", "Open").labels().set(open_connections)
    return registry.snapshot()


def value(total, name):
    return sum(number for family in total["families"] if family["name"] == name for _, number in family["series"])


def test_dead_workers_count_on_but_hold_nothing_open(tmp_path):
    aggregate = Aggregate(tmp_path / "base.json")
    aggregate.follow([(1, 0.0), (2, 0.0)])
    aggregate.update((1, 0.0), snapshot(10, 3))
    aggregate.update((2, 0.0), snapshot(5, 4))
    aggregate.follow([(2, 0.0)])
    assert value(aggregate.total(), "penstock_x_total") == 15
    assert value(aggregate.total(), "penstock_open") == 4


def test_pid_used_again_is_another_worker(tmp_path):
    aggregate = Aggregate(tmp_path / "base.json")
    aggregate.follow([(1, 0.0)])
    aggregate.update((1, 0.0), snapshot(10))
    aggregate.follow([(1, 9.0)])
    aggregate.update((1, 9.0), snapshot(1))
    assert value(aggregate.total(), "penstock_x_total") == 11


def test_answer_that_comes_after_the_death_is_not_counted_twice(tmp_path):
    aggregate = Aggregate(tmp_path / "base.json")
    aggregate.follow([(1, 0.0)])
    aggregate.update((1, 0.0), snapshot(10))
    aggregate.follow([])
    aggregate.update((1, 0.0), snapshot(12))
    assert value(aggregate.total(), "penstock_x_total") == 10


def test_successor_of_the_admin_process_goes_on_from_the_file(tmp_path):
    first = Aggregate(tmp_path / "base.json")
    first.follow([(1, 0.0)])
    first.update((1, 0.0), snapshot(10))
    first.follow([])
    assert value(Aggregate(tmp_path / "base.json").total(), "penstock_x_total") == 10


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["count", "die", "poll"]), st.integers(0, 2), st.integers(0, 5))))
def test_totals_never_fall(tmp_path_factory, steps):
    aggregate = Aggregate(tmp_path_factory.mktemp("base") / "base.json")
    counts = {(slot, 0.0): 0 for slot in range(3)}
    aggregate.follow(counts)
    before = 0
    for number, (what, slot, amount) in enumerate(steps, 1):
        key = next(key for key in counts if key[0] == slot)
        if what == "die":
            del counts[key]
            counts[slot, float(number)] = 0
            aggregate.follow(counts)
        elif what == "count":
            counts[key] += amount
        else:
            aggregate.update(key, snapshot(counts[key]))
        now = value(aggregate.total(), "penstock_x_total")
        assert now >= before
        before = now
