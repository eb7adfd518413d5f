"""The robustness report: complete, self-contained, and deaf to what data try to tell a browser."""

import base64
import re

import numpy as np
import pytest
import tensorflow as tf
from helpers import Page

from tfapp.evaluation.alarms import Alarm
from tfapp.evaluation.robustness import CorruptionAccuracy, Robustness, RobustnessCurve
from tfapp.evaluation.robustness.marking import changed_words, marked_html
from tfapp.evaluation.robustness.page import robustness_page
from tfapp.evaluation.robustness.pictures import example_pictures
from tfapp.evaluation.robustness.result import AttackFigures, Example

EVIL = '<script>alert("1")</script>'
CLASSES = (f"good{EVIL}", "bad'\"&")


def result(examples=(), **changes):
    given = {
        "split": "test",
        "classes": CLASSES,
        "domain": "pixels",
        "attack": "pgd",
        "norm": "linf",
        "epsilon": 8 / 255,
        "settings": {"num_steps": 10, "num_restarts": 1},
        "examples": 200,
        "seed": 4,
        "clean_accuracy": 0.9,
        "clean_interval95": (0.85, 0.93),
        "robust_accuracy": 0.25,
        "interval95": (0.2, 0.31),
        "labels": np.zeros(200, int),
        "clean_predicted": np.zeros(200, int),
        "predicted": np.zeros(200, int),
        "per_attack": (AttackFigures("pgd", 180, 130, 0.25, 1800, 2.5, {"num_steps": 10}),),
        "queries": 1800,
        "seconds": 2.5,
        "worst": tuple(examples),
    }
    return Robustness(**{**given, **changes})


@pytest.fixture(scope="module")
def page():
    pixels = np.full((4, 6, 3), 100, np.uint8)
    examples = [
        Example(3, CLASSES[0], CLASSES[1], 0.8, 0.9, pixels, pixels + np.float32(8)),
        Example(5, CLASSES[1], CLASSES[0], 0.7, 0.6, f"a fine film {EVIL}", f"a good film {EVIL}"),
    ]
    alarm = Alarm("zero_gradients", "pgd", f"on 3 of 64 rows {EVIL}")
    curve = RobustnessCurve(tuple(result(epsilon=epsilon / 255) for epsilon in (2, 4)))
    corruptions = CorruptionAccuracy("test", 50, 0, 0.9, {"fog": (0.8, 0.7)}, (1, 3))
    artifacts = [{"artifact": "dynamic", "robust accuracy": "0.2400"}]
    return robustness_page(
        f"Robustness of {EVIL}",
        [result(examples, alarms=(alarm,), checked=("zero_gradients",))],
        curve=curve,
        artifacts=artifacts,
        corruptions=corruptions,
        notes=[f"Rows of {EVIL}"],
    )


def test_every_figure_stands_with_its_settings_and_its_alarms(page):
    text = Page(page).text
    for wanted in (
        "90.00%",
        "25.00%",
        "95 % interval 20.0 to 31.0 %",
        "attack pgd, norm linf, epsilon 8/255, steps 10, restarts 1, 200 examples of test, seed 4",
        "zero_gradients undermines the figure of pgd",
        "epsilon as stated",
        "severity 3",
        "0.8000 [0.670, 0.888]",
        "dynamic",
    ):
        assert wanted in text
    assert text.index("25.00%") < text.index("zero_gradients") < text.index("Over epsilon")


def test_nothing_of_the_data_becomes_a_tag(page):
    parsed = Page(page)
    assert parsed.open == []
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert parsed.text.count(EVIL) >= 8
    assert "<script" not in page.lower()


def test_the_page_loads_nothing(page):
    sources = [attributes["src"] for tag, attributes in Page(page).tags if tag == "img"]
    assert len(sources) == 4
    for source in sources:
        content = base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)
        assert content.startswith(b"\x89PNG")
    policies = [attributes.get("content", "") for tag, attributes in Page(page).tags if tag == "meta"]
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in policies
    assert not re.search(r"(href|url\(|@import)", page)


def test_pictures_show_the_difference_amplified_around_grey():
    original = np.full((2, 3, 3), 100, np.uint8)
    adversarial = original + np.array([8.0, -8.0, 0.0], np.float32)[None, :, None]
    *pictures, factor = example_pictures(original, adversarial)
    assert factor == pytest.approx(127 / 8)
    for picture, (up, down, same) in zip(
        pictures, ((100, 100, 100), (108, 92, 100), (254, 0, 128)), strict=True
    ):
        content = base64.b64decode(picture.partition(",")[2])
        assert tf.io.decode_png(content).numpy()[0, :, 0].tolist() == [up, down, same]
    *_, unchanged = example_pictures(original, original.astype(np.float32))
    assert unchanged == 1.0


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        ("a good film", "a fine film", [("good", "fine")]),
        ("a good film", "a g ood film", [("good", "g ood")]),
        ("same", "same", []),
        ("", "new", [("", "new")]),
        ("酒店很好推荐", "酒店很差推荐", [("好", "差")]),
        ("line\nbreak", "line break", [("\n", " ")]),
    ],
)
def test_changed_words_are_found_and_nothing_is_lost(before, after, changes):
    pairs = changed_words(before, after)
    assert "".join(one for one, _ in pairs) == before
    assert "".join(other for _, other in pairs) == after
    assert [pair for pair in pairs if pair[0] != pair[1]] == changes


def test_marks_are_the_only_tags():
    before, after = marked_html("<b> fine & good", "<b> fine & great")
    assert before == "&lt;b&gt; fine &amp; <del>good</del>"
    assert after == "&lt;b&gt; fine &amp; <ins>great</ins>"
