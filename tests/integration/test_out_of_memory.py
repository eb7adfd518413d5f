"""Memory that runs out in a step: training goes on with smaller parts, and ends where it would have ended."""

import itertools
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
import test_training
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_training import data, make_model, timeless  # noqa: F401 - fixtures

from tfapp.errors import TrainingError
from tfapp.objectives import StepResult
from tfapp.objectives.standard import Standard
from tfapp.training import Phase
from tfapp.training.checkpoints import Checkpoint
from tfapp.training.inference import batch_outputs
from tfapp.training.memory_errors import from_pipeline, memory_ran_out

HEAD, ALL = Phase("head", epochs=2, learning_rate=0.02), Phase("all", epochs=2, learning_rate=0.01)


def run(model, data, phases=(HEAD,), **options):  # noqa: F811
    return test_training.run(model, data, phases=phases, **options)


@pytest.fixture(autouse=True)
def through_keras(monkeypatch):
    """Its own forward pass, which compiles no kernels, serves for most of this."""
    monkeypatch.setattr("tfapp.training.run.fused_parts", lambda *_, **__: None)


def _eat(hungry):
    """Raises what TensorFlow makes a ResourceExhaustedError of; eagerly, that error itself."""
    if hungry:
        error = tf.errors.ResourceExhaustedError(None, None, "no room")
        raise error if tf.config.functions_run_eagerly() else MemoryError("no room")
    return np.float32(0.0)


class Hungry(Standard):
    """Runs out of memory where a step sees more rows than there is room for, from some step of a phase on."""

    name = "standard"

    def __init__(self, room, first=0):
        self.room, self.first = room, first

    def step(self, model, inputs, labels, sample_weight):
        result = super().step(model, inputs, labels, sample_weight)
        hungry = (tf.shape(result.logits)[0] > self.room) & (model.optimizer.iterations >= self.first)
        with tf.control_dependencies([tf.numpy_function(_eat, [hungry], tf.float32)]):
            return StepResult(tf.identity(result.loss), result.logits, result.gradients)


class Fed(Hungry):
    """The same objective to a run's key, with room for everything."""

    def step(self, model, inputs, labels, sample_weight):
        return Standard().step(model, inputs, labels, sample_weight)


class Ends(keras.callbacks.Callback):
    """Ends the run in the middle of its second epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations.numpy() == 6:
            raise KeyboardInterrupt


@pytest.fixture
def mode(request):
    tf.config.run_functions_eagerly(request.param == "eager")
    yield request.param
    tf.config.run_functions_eagerly(False)


DEFAULT = (("graph", False, 0), ("graph", True, 6), ("eager", True, 6))
MODES = [
    pytest.param(*each, marks=() if each in DEFAULT else pytest.mark.slow)
    for each in itertools.product(("graph", "eager"), (False, True), (0, 6))
]


def smooth(make_model):  # noqa: F811
    return make_model(dropout=0.0, dropout_rate=0.0)


@pytest.mark.parametrize(("mode", "kept", "first"), MODES, indirect=["mode"])
@pytest.mark.parametrize("phases", [[HEAD], pytest.param([HEAD, ALL], marks=pytest.mark.slow)])
def test_a_run_goes_on_with_smaller_parts(make_model, data, tmp_path, caplog, mode, kept, first, phases):  # noqa: F811
    """26 rows in batches of 8 are 4 steps an epoch: memory runs out in the first, or in the second one."""
    options = {"run_dir": tmp_path / "run", "checkpoint_steps": 1} if kept else {}
    calm, told = smooth(make_model), smooth(make_model)
    unbroken = run(calm, data, phases, objective=Fed(3, first))
    with caplog.at_level(logging.WARNING, "tfapp"):
        history = run(told, data, phases, objective=Hungry(3, first), **options)
    for one, other in zip(calm.get_weights(), told.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    for one, other in zip(timeless(unbroken), timeless(history), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    said = [record.message for record in caplog.records if "memory ran out" in record.message]
    assert ["in 2 parts" in said[0], "in 4 parts" in said[1], len(said)] == [True, True, 2]
    place = f"phase 1, epoch 1, step {first - 4} of epoch 2" if kept and first else "phase 1, epoch 0"
    assert said[0].endswith(f"going on after {place}")


def test_the_board_of_a_run_that_went_back_has_each_step_once(make_model, data, tmp_path):  # noqa: F811
    """Keras runs two steps at once; its fourth call fails, and the last checkpoint is of the first epoch."""
    options = {"run_dir": tmp_path, "checkpoint_steps": 3, "tensorboard": {"every": 1}}
    run(smooth(make_model), data, objective=Hungry(3, 6), **options)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "train"), purge_orphaned_data=False).Reload()
    steps = sorted(event.step for event in events.Tensors("step/loss"))
    assert steps == [2, 4, 6, 8]


def test_a_resumed_run_starts_with_the_parts_that_it_ended_with(make_model, data, tmp_path, caplog):  # noqa: F811
    options = {"run_dir": tmp_path, "checkpoint_steps": 1}
    with pytest.raises(KeyboardInterrupt):
        run(smooth(make_model), data, objective=Hungry(4), callbacks=[Ends()], **options)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "tfapp"):
        resumed = smooth(make_model)
        run(resumed, data, objective=Hungry(4), **options)
    assert "memory ran out" not in caplog.text
    unbroken = smooth(make_model)
    run(unbroken, data)
    for one, other in zip(unbroken.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_a_run_killed_before_its_first_checkpoint_remembers_the_parts(make_model, data, tmp_path):  # noqa: F811
    class Killed(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if self.model.num_microbatches == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(smooth(make_model), data, objective=Hungry(4), callbacks=[Killed()], run_dir=tmp_path)
    seen = []

    class Sees(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append(self.model.num_microbatches)

    run(smooth(make_model), data, objective=Hungry(4), callbacks=[Sees()], run_dir=tmp_path)
    assert set(seen) == {2}


def test_one_row_at_once_that_is_too_much_ends_the_run(make_model, data, tmp_path):  # noqa: F811
    with pytest.raises(TrainingError, match=r"phase 1 \(head\) needs more memory than there is, for 1 rows"):
        run(smooth(make_model), data, objective=Hungry(0), run_dir=tmp_path, batch_size=2)


def test_what_cannot_be_divided_says_why(make_model, data):  # noqa: F811
    class Twice(Hungry):
        name = "twice"
        updates = 2

    with pytest.raises(TrainingError, match="cannot be computed in parts: objective 'twice' takes several"):
        run(smooth(make_model), data, objective=Twice(3))


def test_validation_that_needs_too_much_is_not_taken_for_a_step(make_model, data):  # noqa: F811
    class Greedy(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch, logs=None):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    attempts = []

    class Counts(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            attempts.append(1)

    with pytest.raises(TrainingError, match="for 128 rows at once"):
        run(smooth(make_model), data, callbacks=[Greedy(), Counts()])
    assert len(attempts) == 1


def test_features_are_computed_in_smaller_batches(make_model, data, monkeypatch, caplog):  # noqa: F811
    sizes = []

    def hungry(model, rows, *, batch_size, label):
        sizes.append(batch_size)
        for number, batch in enumerate(batch_outputs(model, rows, batch_size=batch_size, label=label)):
            if batch_size > 7 and number:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
            yield batch

    monkeypatch.setattr("tfapp.training.features.EVALUATION_BATCH", 14)
    calm, told = smooth(make_model), smooth(make_model)
    run(calm, data)
    monkeypatch.setattr("tfapp.training.features.batch_outputs", hungry)
    with caplog.at_level(logging.WARNING, "tfapp"):
        run(told, data)
    assert sizes[:2] == [14, 7]
    assert max(sizes[2:], default=0) <= 7
    assert "memory ran out while features were computed: 7 rows at once" in caplog.text
    for one, other in zip(calm.get_weights(), told.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "tfapp.training.features.batch_outputs",
            "needs, to compute the features of one row at once, more memory",
        ),
        (
            "tfapp.training.optimizers.FusedOptimizer.build",
            "needs, for what the optimizer keeps",
        ),
    ],
)
def test_what_no_smaller_part_helps_is_one_clear_error(make_model, data, monkeypatch, place, message):  # noqa: F811
    def exhausted(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(place, exhausted)
    with pytest.raises(TrainingError, match=rf"phase 1 \(head\) {message}"):
        run(smooth(make_model), data)


def test_what_runs_out_in_the_pipeline_is_told_from_what_runs_out_in_a_step():
    batches = tf.data.Dataset.from_tensors(True).map(
        lambda value: tf.numpy_function(_eat, [value], tf.float32)
    )
    with pytest.raises(tf.errors.ResourceExhaustedError) as caught:
        tf.function(lambda batch: next(batch))(iter(batches))
    assert from_pipeline(caught.value)
    with pytest.raises(tf.errors.ResourceExhaustedError) as caught:
        tf.function(lambda: tf.numpy_function(_eat, [True], tf.float32))()
    assert not from_pipeline(caught.value)


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"), True),
        (tf.errors.ResourceExhaustedError(None, None, "events.out; No space left on device"), False),
        (tf.errors.InternalError(None, None, "Failed call to cudnn: CUDNN_STATUS_ALLOC_FAILED"), True),
        (tf.errors.UnknownError(None, None, "CUDA_ERROR_OUT_OF_MEMORY: out of memory"), True),
        (tf.errors.InternalError(None, None, "Blas GEMM launch failed"), False),
        (tf.errors.InvalidArgumentError(None, None, "out of memory of what to do"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_errors(error, lacking):
    assert memory_ran_out(error) is lacking


def test_the_parts_are_in_the_checkpoint(make_model, data, tmp_path):  # noqa: F811
    found = []

    class Looks(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            read = Checkpoint._read(tmp_path / "checkpoints" / "checkpoint.npz")
            found.append(read.progress.num_microbatches if read else None)

    run(smooth(make_model), data, objective=Hungry(4), callbacks=[Looks()], run_dir=tmp_path)
    assert found[-1] == 2


@pytest.mark.parametrize(("available", "warns"), [(10**3, True), (10**12, False)])
def test_a_run_that_will_lack_memory_is_told_with_the_cure(
    make_model,  # noqa: F811
    data,  # noqa: F811
    caplog,
    monkeypatch,
    available,
    warns,
):
    monkeypatch.setattr("tfapp.training.memory_estimate.available_memory", lambda: available)
    with caplog.at_level(logging.WARNING, "tfapp"):
        run(smooth(make_model), data, num_microbatches=2)
    said = [record.message for record in caplog.records]
    if not warns:
        assert not said
        return
    (message,) = said
    assert "'head' may need about 0.0 GB of memory more, and 0.0 GB are available" in message
    assert "lower batch_size (now 8), or raise num_microbatches (now 2), or lower max_length (now" in message


@pytest.mark.parametrize(
    "phase", [HEAD, pytest.param(ALL, marks=pytest.mark.slow)], ids=lambda phase: phase.title
)
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [({"class_weight": {"sport": 3.0}, "loss": "focal"}, 2e-5), ({"precision": "mixed_bfloat16"}, 1e-2)],
)
def test_parts_that_are_asked_for_learn_the_same(make_model, data, phase, options, tolerance):  # noqa: F811
    learned = []
    for parts in (1, 3):
        model = smooth(make_model)
        history = run(model, data, [phase], num_microbatches=parts, optimizer="sgd", **options)
        learned.append((model.get_weights(), [row["loss"] for row in history.epochs]))
    for one, other in zip(learned[0][0], learned[1][0], strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance)
    assert learned[0][1] == pytest.approx(learned[1][1], abs=tolerance)
