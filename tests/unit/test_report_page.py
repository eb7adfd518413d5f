"""The page of a release: complete, self-contained, and deaf to what data try to tell a browser."""

import re

import numpy as np
import pytest
from helpers import Page

from tfapp.evaluation.page_frame import Markup, element, join, name, page, table, text
from tfapp.evaluation.page_plots import bars, confusion_table, reliability_plot
from tfapp.release.answers import Reference
from tfapp.release.class_figures import ClassFigures
from tfapp.release.model_card import model_card
from tfapp.release.release import artifact_table
from tfapp.release.report_page import release_page

EVIL = '<script>alert("1")</script>'
BUDGET = {"min_agreement": 0.99, "max_abs_difference": None}


def artifact(variant, path, **changes):
    return {
        "variant": variant,
        "path": path,
        "bytes": 93_000_000,
        "examples": 40,
        "agreement": 1.0,
        "max_abs_difference": 0.0,
        "accuracy": 0.9,
        "accuracy_drop": 0.0,
        "scale": 1.0,
        "scale_rows": 40,
        "robust_accuracy": None,
        "robustness": None,
        "latency_ms": {"p50": 44.4, "p95": 50.1, "threads": 1, "batch": 1},
        "verdict": "released",
        "reasons": [],
        **changes,
    }


def manifest(**changes):
    return {
        "schema_version": 1,
        "name": "reviews",
        "version": 3,
        "tfapp_version": "0.1.0",
        "libraries": {f"keras{EVIL}": "3.15.1"},
        "seed": 7,
        "config": {"data": {"train": f"rows{EVIL}.csv"}, EVIL: 1},
        "data": {f"test{EVIL}": {"rows": 40, "sha256": "ab" * 32}},
        "metrics": {
            "accuracy": {"value": 0.9, "low": 0.8, "high": 0.95},
            "split": f"test{EVIL}",
            "temperature": 1.5,
            EVIL: 0.5,
        },
        "release": {"verdict": "released", "reasons": [], "budget": BUDGET},
        "files": {f"assets/{EVIL}": "cd" * 32, "saved_model.pb": "ef" * 32},
        "artifacts": [artifact("saved_model", "."), artifact("dynamic", "edge/model-dynamic.tflite")],
        "left_out": [],
        **changes,
    }


def reference(classes, rows=40):
    labels = np.arange(rows) % len(classes)
    probabilities = np.full((rows, len(classes)), 0.1 / (len(classes) - 1))
    probabilities[np.arange(rows), labels] = 0.9
    probabilities[0] = np.roll(probabilities[0], 1)
    return Reference(probabilities, labels, tuple(classes), 1.5)


def written(content=None, classes=(f"good{EVIL}", "bad'\"&"), **changes):
    content = content or manifest(**changes)
    figures = ClassFigures.of(content["metrics"], reference(classes))
    return release_page(
        content, classes=figures, preset=f"/home/me/{EVIL}", rows=artifact_table(content), sources=[EVIL]
    )


def test_nothing_of_the_data_becomes_a_tag():
    shown = written()
    parsed = Page(shown)
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert not any(attribute.startswith("on") for _, attributes in parsed.tags for attribute in attributes)
    # Classes twice in tables and once in the matrix; split twice, library, setting twice, file, score.
    assert parsed.text.count(EVIL) >= 8
    assert "<script" not in shown.lower()


def test_the_page_loads_nothing_and_says_so():
    parsed = Page(written())
    assert {tag for tag, _ in parsed.tags} & {"img", "link", "iframe", "script", "object", "a"} == set()
    policies = [attributes.get("content", "") for tag, attributes in parsed.tags if tag == "meta"]
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in policies
    assert not re.search(r"(href|url\(|@import|src=)", written())


def test_it_says_what_was_measured_and_how_to_use_it():
    shown = Page(written()).text
    for wanted in (
        "reviews 3",
        "Released.",
        "90.00%",
        "95 % interval 80.00% to 95.00%",
        "93.0 MB",
        "44.40 ms",
        "answered all 40 rows",
        "as released",
        "tfapp verify saved_models/reviews/3 --manifest-sha256",
        "tfapp serve saved_models/reviews/3 --manifest-sha256",
        "load_release(",
        "v1/models/reviews:predict",
        "-e MODEL_NAME=reviews tensorflow/serving:2.",
        "edge/model-dynamic.tflite",
        "only releases that you trust",
        "ab" * 32,
        "cd" * 32,
        "Seed 7.",
        "min_agreement",
        "licence",
    ):
        assert wanted in shown, wanted
    assert "/home/me" not in shown


def test_a_refused_release_says_why_and_offers_no_version():
    state = {"verdict": "refused", "reasons": [f"float32: wrong {EVIL}"], "budget": BUDGET}
    failed = artifact("float32", "edge/model-float32.tflite", agreement=None, latency_ms=None, accuracy=None)
    parsed = Page(written(version=None, release=state, artifacts=[failed]))
    assert "Refused." in parsed.text
    assert f"float32: wrong {EVIL}" in parsed.text
    assert "reviews (refused)" in parsed.text
    # Every command would refuse it.
    for absent in ("tfapp verify", "load_release(", "tfapp serve", "docker run"):
        assert absent not in parsed.text
    assert "nothing loads or serves it" in parsed.text


def test_robustness_stands_with_its_settings():
    assert "Robustness" not in Page(written()).text
    found = {
        "attack": "pgd",
        "norm": "linf",
        "epsilon": 8 / 255,
        "num_steps": 10,
        "num_restarts": 1,
        "examples": 40,
        "split": "test",
        "seed": 4,
        "clean_accuracy": 0.9,
        "clean_interval95": [0.85, 0.93],
        "robust_accuracy": 0.25,
        "interval95": [0.2, 0.31],
        "per_attack": [],
        "alarms": [{"name": "zero_gradients", "undermines": "pgd", "message": EVIL}],
        "checked": [],
    }
    stated = {
        "robust_accuracy_drop": 0.01,
        "robust_accuracy": 0.24,
        "transfer_accuracy": 0.3,
        "interval95": [0.12, 0.39],
        "black_box": None,
    }
    attacked = artifact("dynamic", "edge/model-dynamic.tflite", robust_accuracy=0.24, robustness=stated)
    metrics = {**manifest()["metrics"], "robustness": found}
    shown = Page(written(metrics=metrics, artifacts=[attacked])).text
    for wanted in ("norm linf, epsilon 8/255, steps 10", "25.00%", "zero_gradients undermines", "0.2400"):
        assert wanted in shown
    assert "0.1200 to 0.3900" in shown


def test_many_classes_are_told_by_the_worst_of_them():
    classes = [f"class {number}" for number in range(200)]
    parsed = Page(written(classes=classes))
    assert "the 20 lowest F1 of 200" in parsed.text
    assert "Most confused" in parsed.text
    assert "Confusion matrix" not in parsed.text
    assert len(written(classes=classes)) < 60_000


def test_the_given_evaluation_is_shown_and_nonsense_in_its_place_is_not():
    classes, known = ("a", "b"), reference(("a", "b"))
    bins = {"rows": [0, 4], "confidence": [0.0, 0.9], "accuracy": [0.0, 0.75]}
    given = ClassFigures.of({"confusion": [[3, 1], [0, 4]], "reliability": bins}, known)
    assert given.confusion.tolist() == [[3, 1], [0, 4]]
    assert given.reliability == {"at temperature 1": bins}
    assert given.class_rows()[0] == {
        "class": "a",
        "precision": "1.0000",
        "recall": "0.7500",
        "F1": "0.8571",
        "rows": "4",
    }
    assert given.confused(5) == [{"true": "a", "predicted": "b", "rows": "1"}]
    for nonsense in ("many", [[1]], [[0.5, 1], [1, 2]], None):
        reckoned = ClassFigures.of({"confusion": nonsense, "reliability": "none"}, known)
        assert reckoned.confusion.tolist() == [[19, 1], [0, 20]]
        assert list(reckoned.reliability) == ["as released"]
    assert given.classes == classes


def test_a_class_without_rows_has_no_recall():
    figures = ClassFigures.of({"confusion": [[0, 0], [0, 4]]}, reference(("a", "b")))
    assert figures.class_rows()[1]["recall"] == "-"


def test_text_is_escaped_and_markup_is_not():
    inner = element("b", "1 < 2", title='"quoted"')
    assert inner == '<b title="&quot;quoted&quot;">1 &lt; 2</b>'
    assert element("p", inner, "&") == f"<p>{inner}&amp;</p>"
    assert join(["<", Markup("<br>")], "<") == "&lt;&lt;<br>"
    assert element("p", "a", class_="x", hidden=None) == '<p class="x">a</p>'


def test_signs_that_control_a_screen_are_shown_as_signs():
    assert text("a\0b\x1b[31m\x7f\n") == "a\u2400b\u241b[31m\u2421\n"
    assert name("\u202eevil") == "<bdi>\u202eevil</bdi>"


def test_the_page_knows_day_and_night_and_narrow_screens():
    shown = page("title", [table(["a"], [["1"]])])
    assert "prefers-color-scheme: dark" in shown
    assert "width=device-width" in shown
    assert '<div class="scroll" tabindex="0"><table>' in shown


def test_plots_are_drawn_in_proportion():
    drawn = bars([("a", 1.0, "1 MB"), ("b", 4.0, "4 MB"), ("c", 0.0, "0 MB")])
    assert re.findall(r"width:([\d.]+)%", drawn) == ["25.0", "100.0", "0.0"]
    matrix = confusion_table(["a", "b"], [[9, 0], [1, 3]])
    assert re.findall(r"rgba\(var\(--(\w+)\)", matrix) == ["bar", "wrong", "bar"]
    bins = {"rows": [0, 4], "confidence": [0.0, 0.9], "accuracy": [0.0, 0.5]}
    plot = Page(str(reliability_plot(bins, "caption")))
    assert [tag for tag, _ in plot.tags].count("rect") == 1
    (bar,) = (attributes for tag, attributes in plot.tags if tag == "rect")
    scale = 250 - 8 - 38
    assert float(bar["height"]) == pytest.approx(0.5 * scale, abs=0.1)
    assert "4 rows of confidence 0.50 to 1.00: 50.0% right, mean confidence 90.0%" in plot.text


def test_the_card_escapes_what_data_say():
    state = {"verdict": "refused", "reasons": [f"float32: {EVIL} | more"], "budget": BUDGET}
    image = "![](http://127.0.0.1/seen.png)"
    content = manifest(release={**state, "reasons": [*state["reasons"], f"{image} \\{image}"]})
    card = model_card(content, preset=EVIL, rows=[{"artifact": f"a|b{EVIL}"}])
    escaped = "!\\[\\](http://127.0.0.1/seen.png)"
    assert f"* {escaped} \\\\{escaped}" in card
    assert "<script" not in card
    assert "a\\|b&lt;script" in card


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("tech", None),
        ("财经", "zh"),
        ("sport 体育", "zh"),
        ("経済ニュース", "ja"),
        ("경제", "ko"),
        ("𠮷", "zh"),
    ],
)
def test_names_tell_the_browser_their_language(content, expected):
    assert dict(Page(name(content)).tags)["bdi"].get("lang") == expected
    cells = [attributes for tag, attributes in Page(table(["a"], [[content]])).tags if tag == "td"]
    assert cells[0].get("lang") == expected
