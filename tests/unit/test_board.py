"""The board: its settings, its pages that believe no data, and files that are cut back."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html

from tfapp.errors import ConfigError
from tfapp.gpus import Gpus, GpuState
from tfapp.training import Board
from tfapp.training.board import BoardWriters, make_board
from tfapp.training.board_files import cut_back
from tfapp.training.board_pages import PredictionPage, image_sheet, text_table
from tfapp.training.throughput import Reading, WindowLoss

NASTY = "<script>alert(1)</script> | **bold** [x](http://y) `code` _it_ $a$ &lt; \\| \r\n# head\u202eback"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"every": 0}, "every = 0"),
        ({"predictions": -1}, "predictions = -1"),
        ({"profile_steps": (9, 3)}, "give the first and the last step"),
        ({"profile_steps": (0, 3)}, "give the first and the last step"),
        ({"histogram": True}, "did you mean 'histograms'"),
        ("yes", "give True, False, or settings by name"),
    ],
)
def test_what_a_board_cannot_be_is_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        make_board(setting)


def test_a_board_is_what_its_settings_say():
    assert make_board(False) is None
    assert make_board(True) == Board()
    given = make_board({"every": 7, "profile_steps": [3, 9]})
    assert given == Board(every=7, profile_steps=(3, 9))
    assert make_board(given) is given


def test_nothing_of_a_text_is_markup():
    page = markdown_to_safe_html(
        text_table([NASTY, "x" * 500], [(NASTY, "sport", 0.5), ("tech", "tech", 1.0)])
    )
    assert page.count("<tr>") == 3
    assert page.count("<td") == 10
    for tag in ("<script", "<em", "<a", "<code", "<h1"):
        assert tag not in page
    assert page.count("<strong>") == 1  # our own, of the wrong one
    assert "\u202e" not in page
    assert "x" * 300 + "…" in page


def test_captions_say_what_is_right_and_what_is_wrong():
    pixels = np.full((5, 8, 8, 3), 255, np.uint8)
    right = image_sheet(pixels, [("a $x_$", "a $x_$", 0.9)] * 5)
    wrong = image_sheet(pixels, [("a $x_$", "b", 0.9)] * 5)
    assert right.dtype == np.uint8
    assert right.ndim == 3

    def has_red(sheet):
        red, green = sheet[..., 0].astype(int), sheet[..., 1].astype(int)
        return bool((red - green > 100).any())

    assert has_red(wrong)
    assert not has_red(right)


def test_a_page_shows_rows_with_their_predictions(tmp_path):
    logits = np.log([[0.9, 0.1], [0.2, 0.8]])
    page = PredictionPage(lambda: logits, np.array([0, 0]), classes=("a", "b"), texts=["one", "two"])
    writers = BoardWriters(tmp_path)
    with writers.at("validation", 3):
        page()
    writers.close()
    events = EventAccumulator(str(tmp_path / "validation")).Reload()
    (event,) = events.Tensors("predictions")
    text = tf.make_ndarray(event.tensor_proto).item().decode()
    assert event.step == 3
    assert text.splitlines()[2:] == ["| right | one | a | a | 0.900 |", "| **wrong** | two | a | b | 0.800 |"]


def write_steps(directory, steps):
    writers = BoardWriters(directory)
    for step in steps:
        with writers.at("", step):
            tf.summary.scalar("loss", float(step))
    writers.close()


def steps_in(directory):
    events = EventAccumulator(str(directory), purge_orphaned_data=False).Reload()
    return [event.step for event in events.Tensors("loss")] if "loss" in events.Tags()["tensors"] else []


def test_files_are_cut_back_to_a_step(tmp_path):
    write_steps(tmp_path, range(1, 8))
    other = tmp_path / "events.out.tfevents.1.host.others"
    other.write_bytes(b"not ours")
    (path,) = tmp_path.glob("*.tfapp")
    path.write_bytes(path.read_bytes()[:-5])  # killed while it wrote step 7
    cut_back(tmp_path, last_step=4)
    write_steps(tmp_path, range(5, 8))
    # Within a second, files are in the order of their names, not of their making.
    assert sorted(steps_in(tmp_path)) == [1, 2, 3, 4, 5, 6, 7]
    cut_back(tmp_path, last_step=-1)
    assert [path.name for path in tmp_path.iterdir()] == [other.name]
    cut_back(tmp_path / "missing", last_step=3)


def test_the_loss_of_a_window_comes_from_the_means_of_the_epoch():
    losses, rows = np.array([4.0, 2.0, 6.0, 1.0]), np.array([8, 8, 8, 2])
    means = np.cumsum(losses * rows) / np.cumsum(rows)
    window = WindowLoss(batch_size=8, rows=26)
    window.begin_epoch(0)
    assert window.take(means[0], 1) == pytest.approx(4.0)
    assert window.take(means[2], 3) == pytest.approx(4.0)  # of 2 and 6
    assert window.take(means[3], 4) == pytest.approx(1.0)
    assert window.take(means[3], 4) is None
    window = WindowLoss(batch_size=8, rows=26)
    window.begin_epoch(2)
    assert window.take(means[2], 3) is None
    assert window.take(means[3], 4) == pytest.approx(1.0)
    window = WindowLoss(batch_size=8, rows=26, resumed=means[1])
    window.begin_epoch(2)
    assert window.take(means[2], 3) == pytest.approx(6.0)


def test_rates_are_those_of_the_time_between():
    earlier, later = Reading(1.0, 0.5, 10.0, 100.0), Reading(3.0, 0.75, 50.0, 900.0)
    rates = later.since(earlier)
    assert (rates.examples_per_second, rates.tokens_per_second, rates.input_wait) == (20.0, 400.0, 0.125)
    assert later.since(later) is None
    assert Reading(2.0, 0.0, 4.0, 0.0).since(Reading()).tokens_per_second is None


class Nvml:
    """Answers as pynvml does on a machine with two GPUs, of which the second can be lost."""

    def __init__(self):
        self.lost = False

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return [b"GPU A", "GPU B"][handle]

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        if self.lost and handle == 1:
            raise RuntimeError("GPU is lost")
        return SimpleNamespace(used=10 * (handle + 1), total=100, free=0)

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        return SimpleNamespace(gpu=25 * (handle + 1), memory=0)


def test_gpus_are_read_as_long_as_they_tell():
    library = Nvml()
    gpus = Gpus(library)
    assert gpus.read() == [GpuState("GPU A", 10, 100, 0.25), GpuState("GPU B", 20, 100, 0.5)]
    library.lost = True
    assert gpus.read() == []


def test_without_a_driver_there_are_no_gpus():
    library = Nvml()
    library.nvmlInit = lambda: 1 / 0
    assert Gpus(library).read() == []
