"""The choice of settings from what was measured, trainings that take turns, and edits of workflow files."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from tfapp.commands import tune_training as command
from tfapp.config import load_config
from tfapp.config_edits import WorkflowFile
from tfapp.errors import ConfigError, OutputError, TrainingError
from tfapp.training.tuning import Tuned
from tfapp.training.tuning_choice import Chosen, MeasuredPhase, Settings, Way, choose
from tfapp.training.turns import seconds_by_turns

NOW = Settings("float32", 32, 2048.0)
CHOICES = {
    "precisions": ("float32", "mixed_bfloat16"),
    "batch_sizes": (32, 64),
    "cache_megabytes": (2048.0, 0.0, 4096.0),
}


def phase(seconds, *, epochs=3, megabytes=None, rows=1000):
    """A phase whose ways took so many seconds in each of five rounds, or as many as are listed."""
    listed = {Way(*way): taken if isinstance(taken, list) else [taken] * 5 for way, taken in seconds.items()}
    return MeasuredPhase("all", epochs, rows, 100, megabytes, listed)


def chosen(*phases, now=NOW):
    return choose(phases, now, **CHOICES)


def test_what_is_faster_beyond_doubt_is_chosen():
    found = chosen(phase({("float32", 32): 1.0, ("mixed_bfloat16", 32): 0.5, ("float32", 64): 0.9}))
    assert found.settings == Settings("mixed_bfloat16", 32, 2048.0)
    assert found.speed_up == pytest.approx(2.0)


@pytest.mark.parametrize(
    "taken",
    [
        0.98,  # less than 3 %
        [0.5, 0.5, 0.5, 1.1, 1.1],  # slower in two rounds of five
        1.2,
    ],
)
def test_what_is_within_the_noise_changes_nothing(taken):
    assert chosen(phase({("float32", 32): 1.0, ("mixed_bfloat16", 32): taken})) == Chosen(NOW)


def test_a_slow_moment_of_the_machine_does_not_decide():
    rounds = [1.0, 4.0, 1.0, 1.0, 1.0]
    found = chosen(
        phase({("float32", 32): rounds, ("mixed_bfloat16", 32): [0.8 * each for each in rounds]}),
    )
    assert found.speed_up == pytest.approx(1.25)


def test_the_whole_training_counts_and_not_a_phase_of_it():
    short = phase({("float32", 32): 1.0, ("mixed_bfloat16", 32): 0.5}, epochs=1)
    long = phase({("float32", 32): 1.0, ("mixed_bfloat16", 32): 1.2}, epochs=10)
    assert chosen(short).settings.precision == "mixed_bfloat16"
    assert chosen(short, long) == Chosen(NOW)


def test_a_larger_cache_is_chosen_where_it_pays_after_it_was_filled():
    taken = {("float32", 32, False): 1.0, ("float32", 32, True): 0.2}
    found = chosen(phase(taken, epochs=4, megabytes=3000.0))
    # Filling it takes 0.8, then each of the four epochs 0.2.
    assert (found.settings, found.speed_up) == (Settings("float32", 32, 4096.0), pytest.approx(4 / 1.6))
    assert chosen(phase(taken, epochs=1, megabytes=3000.0)) == Chosen(NOW)
    assert chosen(phase(taken, epochs=4, megabytes=5000.0)) == Chosen(NOW)
    slower = {("float32", 32, False): 0.2, ("float32", 32, True): 1.0}
    assert chosen(phase(slower, megabytes=100.0)).settings == Settings("float32", 32, 0.0)


def test_of_what_is_nearly_as_fast_the_fewest_changes_are_taken():
    taken = {("float32", 32): 1.0, ("mixed_bfloat16", 32): 0.5, ("mixed_bfloat16", 64): 0.495}
    assert chosen(phase(taken)).settings.batch_size == 32
    taken["mixed_bfloat16", 64] = 0.4
    assert chosen(phase(taken)).settings.batch_size == 64


def test_what_could_not_be_measured_in_every_phase_is_not_chosen():
    everything = phase({("float32", 32): 1.0, ("float32", 64): 0.5})
    half = phase({("float32", 32): 1.0})
    assert chosen(everything).settings.batch_size == 64
    assert chosen(everything, half) == Chosen(NOW)


class Model:
    optimizer = SimpleNamespace(iterations=SimpleNamespace(numpy=lambda: 0))


def training(log, name, *, fails_at=None):
    """Trains nothing, but says so."""

    def train(callback):
        callback.set_model(Model)
        log.append(("begins", name))
        try:
            for epoch in range(1000):
                if epoch == fails_at:
                    raise TrainingError("needs more memory than there is")
                callback.on_epoch_begin(epoch)
                log.append(("trains", name))
                callback.on_train_batch_end(0)
                callback.on_epoch_end(epoch)
        finally:
            log.append(("ends", name))

    return train


def test_trainings_take_turns_and_all_end():
    log, threads = [], threading.active_count()
    seconds, failed = seconds_by_turns(
        {name: training(log, name) for name in "ab"}, until=0.0, least_rounds=3, most_rounds=9
    )
    assert failed == {}
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 3, "b": 3}
    trained = "".join(name for what, name in log if what == "trains")
    # A pass that does not count, then turns of two in an order that changes.
    assert trained == "ab" + "aabb" + "bbaa" + "aabb"
    assert [name for what, name in log if what == "ends"] == ["a", "b"]
    assert threading.active_count() == threads


def test_one_that_fails_does_not_keep_the_others_from_being_measured():
    log = []
    trainings = {"a": training(log, "a"), "b": training(log, "b", fails_at=2)}
    seconds, failed = seconds_by_turns(trainings, until=0.0, least_rounds=2)
    assert set(seconds) == {"a"}
    assert "more memory" in str(failed["b"])
    assert ("ends", "a") in log


def test_an_interrupt_ends_all_of_them_at_their_next_step():
    log, threads = [], threading.active_count()
    calls = iter(range(10))

    class Interrupting:
        def numpy(self):
            if next(calls) == 2:
                raise KeyboardInterrupt
            return 0

    model = SimpleNamespace(optimizer=SimpleNamespace(iterations=Interrupting()))

    def interrupted(callback):
        callback.set_model(model)
        for epoch in range(10):
            callback.on_epoch_begin(epoch)
            callback.on_epoch_end(epoch)

    with pytest.raises(KeyboardInterrupt):
        seconds_by_turns({"a": training(log, "a"), "b": interrupted}, until=time.monotonic() + 60)
    assert ("ends", "a") in log
    assert threading.active_count() == threads


WORKFLOW = """\
# The weekly run.
name = "weekly"  # becomes a path

[data]
train = "rows.csv"   # beside this file

[train]
batch_size = 16          # fits the old card
# precision = "float32"
patience = 2

[evaluate]
num_bootstrap = 50
"""


@pytest.fixture
def workflow(tmp_path):
    path = tmp_path / "workflow.toml"
    path.write_text(WORKFLOW)
    (tmp_path / "rows.csv").write_text("text,label\n")
    return path


def test_values_are_set_and_all_else_stays_as_it_was(workflow):
    workflow.chmod(0o640)
    WorkflowFile(workflow).write({"train.batch_size": 64, "train.precision": "mixed_bfloat16"})
    lines = workflow.read_text().splitlines()
    assert "batch_size = 64          # fits the old card" in lines
    assert 'precision = "mixed_bfloat16"' in lines
    before = WORKFLOW.splitlines()
    assert [line for line in before if line not in lines] == ["batch_size = 16          # fits the old card"]
    config = load_config(workflow)
    assert (config.train.batch_size, config.train.precision, config.train.patience) == (
        64,
        "mixed_bfloat16",
        2,
    )
    assert workflow.stat().st_mode & 0o777 == 0o640
    assert {path.name for path in workflow.parent.iterdir()} == {"workflow.toml", "rows.csv"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('name = "a"\n', 'name = "a"\n[train]\nprecision = "float32"\n'),
        ('name = "a"\ntrain.patience = 2\n', 'name = "a"\ntrain.patience = 2\ntrain.precision = "float32"\n'),
        ("train = { patience = 2 } # short\n", 'train = { patience = 2, precision = "float32"} # short\n'),
        (
            "[train]\npatience = 2\n\n# Of the test rows.\n[evaluate]\nnum_bootstrap = 50\n",
            '[train]\npatience = 2\nprecision = "float32"\n\n'
            "# Of the test rows.\n[evaluate]\nnum_bootstrap = 50\n",
        ),
        ("\ufeff[train]\r\npatience = 2\r\n", '\ufeff[train]\r\npatience = 2\r\nprecision = "float32"\r\n'),
    ],
)
def test_sections_are_changed_in_the_form_that_they_have(tmp_path, before, after):
    path = tmp_path / "workflow.toml"
    path.write_bytes(before.encode())
    WorkflowFile(path).write({"train.precision": "float32"})
    written = path.read_bytes().decode()
    assert written.replace("\n\n[", "\n[") == after


def test_a_link_stays_a_link(workflow):
    link = workflow.with_name("link.toml")
    link.symlink_to(workflow)
    WorkflowFile(link).write({"train.batch_size": 8})
    assert link.is_symlink()
    assert load_config(workflow).train.batch_size == 8


def test_a_file_that_changed_meanwhile_is_not_overwritten(workflow):
    file = WorkflowFile(workflow)
    workflow.write_text(WORKFLOW + "# mine\n")
    with pytest.raises(OutputError, match="has changed meanwhile, so nothing was written"):
        file.write({"train.batch_size": 8})
    assert workflow.read_text() == WORKFLOW + "# mine\n"


def test_a_read_only_file_is_refused_even_to_the_superuser(workflow):
    workflow.chmod(0o444)
    with pytest.raises(OutputError, match="read-only"):
        WorkflowFile(workflow)


@pytest.fixture
def measured(monkeypatch):
    """Stands for the measuring, which finds bfloat16 and larger batches faster."""
    from tfapp import terminal, workflow_tuning

    calls = []

    def tune(config, **options):
        calls.append((config, options))
        taken = {("float32", 16): 1.0, ("mixed_bfloat16", 64): 0.5}
        settings = Settings("mixed_bfloat16", 64, 2048.0)
        return Tuned((phase(taken),), Settings("float32", 16, 2048.0), Chosen(settings, 2.0))

    monkeypatch.setattr(terminal, "load_tensorflow", lambda: None)
    monkeypatch.setattr(workflow_tuning, "tune_workflow", tune)
    return calls


def call(*arguments):
    from click.testing import CliRunner

    return CliRunner().invoke(command, [str(each) for each in arguments])


def test_the_command_prints_the_keys_and_writes_only_when_asked(workflow, measured):
    done = call(workflow, "--batch-size", 64, "--seconds", 9)
    assert done.exit_code == 0, done.output
    assert measured[0][1] == {"batch_sizes": (64,), "seconds": 9.0}
    assert 'train.precision = "mixed_bfloat16"' in done.output
    assert "train.batch_size = 64" in done.output
    assert "50% of the time" in done.output
    assert "choose the learning rates of the phases anew" in done.output
    assert workflow.read_text() == WORKFLOW
    done = call(workflow, "--write")
    assert "Written:" in done.output
    assert load_config(workflow).train.batch_size == 64


def test_a_key_that_is_replaced_on_the_command_line_is_not_written(workflow, measured):
    done = call(workflow, "--write", "--set", "train.batch_size=8")
    assert isinstance(done.exception, ConfigError)
    assert "leave one of the two out" in str(done.exception)
    assert measured == []
    assert call(workflow, "--write", "--set", "train.patience=3").exit_code == 0
    assert measured[0][0].train.patience == 3


def test_a_read_only_file_is_refused_before_anything_is_measured(workflow, measured):
    workflow.chmod(0o444)
    assert isinstance(call(workflow, "--write").exception, OutputError)
    assert measured == []
    assert call(workflow).exit_code == 0


def test_without_a_winner_nothing_is_written(workflow, measured, monkeypatch):
    from tfapp import workflow_tuning

    tuned = Tuned((phase({("float32", 16): 1.0}),), NOW, Chosen(NOW))
    monkeypatch.setattr(workflow_tuning, "tune_workflow", lambda _config, **_options: tuned)
    done = call(workflow, "--write")
    assert "No other settings are faster beyond doubt; nothing to change." in done.output
    assert workflow.read_text() == WORKFLOW
