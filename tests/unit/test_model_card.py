"""The model card: no path of a machine, the terms of packaged data, and no claim that does not hold."""

import pytest

from tfapp.data.datasets import DATASETS
from tfapp.release.model_card import model_card, preset_name
from tfapp.release.release import artifact_table

TABLE = [{"artifact": "float32", "verdict": "released"}]


def card(*, preset="minilm-l6", config=None, agreements=(1.0,), left_out=(), **options):
    names = ("float32", "text")
    manifest = {
        "name": "reviews",
        "tfapp_version": "0.1.0",
        "release": {"verdict": "released", "reasons": []},
        "config": config or {},
        "metrics": {"accuracy": 0.9},
        "data": {"test": {"rows": 430, "sha256": "0" * 64}},
        "artifacts": [
            {"variant": name, "examples": 430, "agreement": agreement}
            for name, agreement in zip(names, agreements, strict=False)
        ],
        "left_out": left_out,
    }
    return model_card(manifest, preset=preset, rows=TABLE, **options)


@pytest.mark.parametrize(
    ("preset", "name"),
    [
        ("minilm-l6", "minilm-l6"),
        ("/home/somebody/weights/my-bert", "my-bert"),
        ("../weights/my-bert/", "my-bert"),
        ("hf://google-bert/bert-base-uncased", "hf://google-bert/bert-base-uncased"),
        ("", ""),
    ],
)
def test_of_a_folder_only_its_name_is_told(preset, name):
    assert preset_name(preset) == name
    assert "somebody" not in card(preset=preset)
    assert name in card(preset=preset)


def test_the_terms_of_a_packaged_data_set_are_stated_however_it_was_named():
    licence = DATASETS["bbc-news"].licence
    assert licence not in card(sources=("reviews.csv",))
    assert f"bbc-news; {licence}" in card(sources=("bbc-news",))
    assert f"bbc-news; {licence}" in card(config={"data": {"dataset": "bbc-news", "train": None}})
    assert card(sources=("bbc-news",), config={"data": {"dataset": "bbc-news"}}).count(licence) == 1


def test_what_could_not_be_measured_is_not_said_to_have_answered():
    assert "Each was loaded in a fresh process and answered all 430 rows" in card(agreements=(1.0, 0.9))
    assert "Each but text, which could not be measured, was loaded" in card(agreements=(1.0, None))
    assert "was loaded" not in card(agreements=(None, None))


def test_a_variant_that_was_left_out_is_told_with_its_reasons():
    left_out = [{"variant": "text", "reasons": ["text: agrees on 98.85% of 872 rows (min_agreement)"]}]
    assert "Left out" not in card()
    assert "* text: agrees on 98.85% of 872 rows (min_agreement)" in card(left_out=left_out)


def test_the_table_tells_a_measured_scale_from_one_that_no_row_tells():
    entry = {
        "variant": "int8",
        "path": "edge/model-int8.tflite",
        "bytes": 1,
        "examples": 200,
        "agreement": 1.0,
        "max_abs_difference": 0.0,
        "accuracy": None,
        "accuracy_drop": None,
        "latency_ms": None,
        "verdict": "released",
    }
    told = {"scale": 0.98, "scale_rows": 50}
    untold = {"scale": None, "scale_rows": 0}
    failed = {**untold, "agreement": None}
    table = artifact_table({"artifacts": [{**entry, **each} for each in (told, untold, failed)]})
    assert [row["scale"] for row in table] == ["0.980 on 50 of 200 rows", "not measurable", "-"]


def test_a_student_stands_beside_its_teacher():
    from tfapp.evaluation.teacher import teacher_table, teacher_words

    def scored(value):
        return {"value": value, "low": value - 0.01, "high": value + 0.01}

    teacher = {"accuracy": scored(0.9), "parameters": 2000, "student_parameters": 500, "agreement": 0.953}
    metrics = {"accuracy": scored(0.88), "macro_f1": scored(0.8), "teacher": teacher}
    first, last = teacher_table(metrics)
    assert first == {
        "score": "accuracy",
        "teacher": "0.9000 (0.8900 to 0.9100)",
        "student": "0.8800 (0.8700 to 0.8900)",
        "difference": "-0.0200",
    }
    assert last == {"score": "parameters", "teacher": "2,000", "student": "500", "difference": "-75.0%"}
    assert "Both answer the same to 95.30% of them." in teacher_words(metrics)
    assert teacher_table({"accuracy": scored(0.88)}) == []
