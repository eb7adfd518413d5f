"""What is known of memory before a run: sizes of a graph's tensors, and the limits of the machine."""

import pytest
import tensorflow as tf

from tfapp import machine
from tfapp.training.memory_estimate import graph_bytes

MEBI = 2**20


def traced(function, *shapes):
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    return tf.function(function, autograph=False).get_concrete_function(*specs).graph


def test_what_is_needed_at_once_is_counted():
    """1 MiB comes in; each product makes another, and the one before it is not needed any more."""
    chain = traced(lambda one: tf.matmul(tf.matmul(tf.matmul(one, one), one), one), [512, 512])
    assert graph_bytes(chain) == 3 * MEBI
    kept = traced(lambda one: tf.add_n([tf.matmul(one, one) for _ in range(4)]), [512, 512])
    assert graph_bytes(kept) == 5 * MEBI


def test_what_the_backward_pass_needs_is_kept():
    def gradient(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            for _ in range(6):
                values = tf.sin(values)
        return tape.gradient(values, values)

    def deep(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = values
            for _ in range(6):
                result = tf.sin(result)
        return tape.gradient(result, values)

    assert graph_bytes(traced(deep, [512, 512])) >= 6 * MEBI
    assert graph_bytes(traced(gradient, [512, 512])) <= 3 * MEBI


def test_a_loop_counts_what_its_body_takes():
    def loop(values):
        return tf.while_loop(
            lambda step, _: step < 3,
            lambda step, now: (step + 1, tf.matmul(tf.matmul(now, now), tf.matmul(now, now))),
            (0, values),
        )[1]

    assert graph_bytes(traced(loop, [512, 512])) >= 4 * MEBI


def test_views_of_a_tensor_and_what_nobody_needs_count_once_or_not_at_all():
    def viewed(values):
        tf.matmul(values, values)
        return tf.identity(tf.reshape(values, [-1]))

    assert graph_bytes(traced(viewed, [512, 512])) == MEBI


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A /proc and a /sys of our own."""
    actual = machine.Path

    def path(name):
        return tmp_path / name.lstrip("/") if str(name).startswith(("/proc", "/sys")) else actual(name)

    monkeypatch.setattr(machine, "Path", path)

    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("proc/meminfo", "MemTotal:       32000 kB\nMemAvailable:   16000 kB\n")
    return write


def test_free_memory_counts_where_there_is_no_limit(system):
    assert machine.available_memory() == 16000 * 1024
    system("proc/self/cgroup", "0::/\n")
    system("sys/fs/cgroup/memory.max", "max\n")
    system("sys/fs/cgroup/memory.current", "5000\n")
    assert machine.available_memory() == 16000 * 1024


def test_the_smallest_limit_of_the_groups_around_counts(system):
    system("proc/self/cgroup", "0::/outer/inner\n")
    for group, limit, used in (("outer", 9000, 4000), ("outer/inner", 8000, 1000)):
        system(f"sys/fs/cgroup/{group}/memory.max", f"{limit}\n")
        system(f"sys/fs/cgroup/{group}/memory.current", f"{used}\n")
    system("sys/fs/cgroup/outer/memory.stat", "anon 3500\ninactive_file 500\n")
    assert machine.available_memory() == 5500


def test_limits_of_the_older_kind_count(system):
    system("proc/self/cgroup", "4:cpu,memory:/docker/x\n1:name=systemd:/\n")
    system("sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "7000\n")
    system("sys/fs/cgroup/memory/docker/x/memory.usage_in_bytes", "2000\n")
    assert machine.available_memory() == 5000


def test_a_system_that_does_not_tell_has_no_figure(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "Path", lambda name: tmp_path / name.lstrip("/"))
    assert machine.available_memory() is None
