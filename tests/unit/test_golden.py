import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageSequence

from tfapp.data.image_decoding import ImageDecoder
from tfapp.errors import ReleaseError
from tfapp.release.answers import Answers
from tfapp.release.gate import Budget
from tfapp.release.golden import Golden, choose_steady
from tfapp.release.golden_images import make_golden_images
from tfapp.release.golden_texts import TextInputs, make_golden_texts
from tfapp.release.vocabulary import tokenize


@pytest.fixture
def golden():
    return Golden(
        feature="text",
        tensor_endpoint="serve_ids",
        classes=("cat", "dog"),
        temperature=1.5,
        tensors=("token_ids", "padding_mask", "segment_ids"),
        inputs=TextInputs(
            texts=("", "good film"),
            token_ids=(((2, 3),), ((2, 40, 41, 3), (2, 41, 3))),
            preprocessor={"lowercase": True, "max_length": 6, "pad_id": 9},
        ),
        probabilities=np.array([[0.5, 0.5], [0.1, 0.9]]),
    )


def of_words_alone(text, vocabulary):
    return set(text.split(" ")) <= {"", *vocabulary}


def test_texts_are_the_same_every_time_and_made_of_the_vocabulary(tiny_vocab):
    texts = make_golden_texts(tiny_vocab, max_length=32)
    assert texts == make_golden_texts(tiny_vocab, max_length=32)
    assert texts != make_golden_texts(tiny_vocab, max_length=32, seed=1)
    assert len(texts) == 50
    assert len([text for text in texts if of_words_alone(text, tiny_vocab)]) == 38


def test_every_fourth_text_shows_what_tokenizers_differ_on(tiny_vocab):
    texts = make_golden_texts(tiny_vocab, max_length=32)
    dressed = [text for text in texts if not of_words_alone(text, tiny_vocab)]
    together = "".join(dressed)
    assert any(text.istitle() for text in dressed)
    assert any(text.isupper() for text in dressed)
    assert {"é", "\u0301", "\u00a0", "好", "ß", "\u200b", "$", "“"} <= set(together)
    assert max(len(word) for text in dressed for word in text.split()) == 101


def test_texts_include_the_empty_one_and_one_that_is_cut(tiny_vocab):
    texts = make_golden_texts(tiny_vocab, max_length=32)
    content = "\n".join(tiny_vocab).encode()
    lengths = [len(ids) for ids in tokenize(content, texts, lowercase=True, max_length=10_000)]
    assert lengths[0] == 2
    assert lengths[1] > 32
    plain = [length for text, length in zip(texts, lengths, strict=True) if of_words_alone(text, tiny_vocab)]
    assert max(plain[2:]) <= 32


def test_the_shortest_max_length_still_has_texts(tiny_vocab):
    assert len(make_golden_texts(tiny_vocab, max_length=3, count=5)) == 5


def test_of_golden_gifs_the_first_frame_is_decoded():
    gifs = [image for image in make_golden_images((40, 57)) if image.startswith(b"GIF89a")]
    assert len(gifs) == 6
    for gif in gifs:
        frames = ImageSequence.all_frames(Image.open(io.BytesIO(gif)), lambda frame: frame.convert("RGB"))
        first, second = map(np.array, frames)
        assert np.abs(first.astype(int) - second).max() > 50
        decoder = ImageDecoder(first.shape[:2])
        np.testing.assert_array_equal(decoder.fixed([gif])[0]["pixels"][0], first)


def test_every_fifth_golden_image_has_the_models_size():
    sizes = [Image.open(io.BytesIO(content)).size for content in make_golden_images((40, 57))]
    assert [number for number, size in enumerate(sizes) if size == (57, 40)] == list(range(2, 50, 5))


def test_golden_images_of_every_format_have_blocks_and_gradients():
    blocks = {}
    for content in make_golden_images((40, 57)):
        image = Image.open(io.BytesIO(content))
        if image.format != "JPEG":
            pixels = np.array(image.convert("RGB")).astype(int)
            edges = np.diff(pixels, axis=1).any(axis=(0, 2)).sum()
            blocks.setdefault(image.format, set()).add(bool(edges <= 3))
    assert blocks == {"PNG": {True, False}, "BMP": {True, False}, "GIF": {True, False}}


def test_vectors_read_back_as_written(golden, tmp_path):
    golden.record("dynamic", Answers(probabilities=np.array([[0.4, 0.6], [0.2, 0.8]])))
    golden.save(tmp_path / "golden.json")
    loaded = Golden.load(tmp_path / "golden.json")
    assert (loaded.inputs, loaded.classes) == (golden.inputs, golden.classes)
    assert loaded.tolerance == golden.tolerance
    assert loaded.tensors == golden.tensors
    np.testing.assert_allclose(loaded.probabilities, golden.probabilities, atol=1e-6)
    np.testing.assert_allclose(loaded.reference("dynamic").probabilities, [[0.4, 0.6], [0.2, 0.8]], atol=1e-6)


def test_the_file_has_one_entry_an_input(golden, tmp_path):
    golden.save(tmp_path / "golden.json")
    content = json.loads((tmp_path / "golden.json").read_text())
    assert content["inputs"][1] == {
        "text": "good film",
        "token_ids": [[2, 40, 41, 3], [2, 41, 3]],
        "probabilities": [0.1, 0.9],
    }


def test_exact_variants_are_held_to_the_model_and_others_to_themselves(golden):
    answers = Answers(probabilities=np.array([[0.3, 0.7], [0.1, 0.9]]))
    golden.record("float32", Answers(probabilities=golden.probabilities + 1e-5))
    golden.record("dynamic", answers)
    assert golden.tolerance["float32"] == pytest.approx(1e-3)
    assert golden.reference("float32").probabilities is golden.probabilities
    assert golden.reference("dynamic").probabilities is answers.probabilities


@pytest.mark.parametrize(
    ("moved", "step", "tolerance"),
    [(0.0, 0.0, 0.02), (0.1, 0.0, 0.075), (0.4, 0.0, 0.1), (0.2, 1 / 256, 0.02)],
)
def test_room_for_other_processors_grows_with_what_rounding_moves(golden, moved, step, tolerance):
    shifted = golden.probabilities + np.array([[0.0, 0.0], [moved, -moved]])
    golden.record("dynamic", Answers(probabilities=shifted, step=step))
    assert golden.tolerance["dynamic"] == pytest.approx(tolerance)


def test_of_each_kind_the_first_input_is_kept_whose_class_rounding_leaves_alone():
    first = [0.9, 0.54, 0.9, 0.51]
    second = [0.8, 0.8, 0.52, 0.56]
    probabilities = np.array([[value, 1 - value] for value in first + second])
    moved = probabilities.copy()
    moved[2] = [0.7, 0.3]  # steep, but further from the border than the other input of its kind
    answers = [Answers(error="crashed"), Answers(probabilities=moved)]
    assert choose_steady(probabilities, answers, draws=2).tolist() == [0, 5, 2, 7]


def test_integers_do_not_make_an_input_steep():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    answers = Answers(probabilities=1 - probabilities, step=1 / 256)
    assert choose_steady(probabilities, [answers], draws=2).tolist() == [0]


def test_answers_that_failed_are_not_recorded(golden):
    golden.record("text", Answers(error="crashed"))
    assert golden.tolerance == {}


def test_the_probe_is_padded_without_a_tokenizer(golden):
    probe = golden.probe()
    assert list(probe.features) == [b"", b"good film"]
    assert probe.tensors["token_ids"].tolist() == [
        [2, 3, 9, 9, 9, 9],
        [2, 40, 41, 3, 9, 9],
        [2, 41, 3, 9, 9, 9],
    ]
    assert probe.tensors["padding_mask"].sum(axis=1).tolist() == [2, 4, 3]
    assert probe.owners.tolist() == [0, 1, 1]
    assert {values.dtype for values in probe.tensors.values()} == {np.dtype(np.int32)}


def test_the_probe_has_the_tensors_that_the_model_declares(golden):
    assert list(replace(golden, tensors=("token_ids", "padding_mask")).probe().tensors) == [
        "token_ids",
        "padding_mask",
    ]


@pytest.mark.parametrize(
    ("row", "kind"), [(0, "the empty text"), (1, "a text of 2 words"), (2, "the text beyond max_length")]
)
@pytest.mark.parametrize(("variant", "allowed", "refused"), [("float32", 0.005, 0.02), ("text", 0.3, 0.6)])
def test_one_wrong_row_is_refused_by_its_kind(golden, row, kind, variant, allowed, refused):
    right = np.tile([0.9, 0.1], (3, 1))
    inputs = replace(golden.inputs, texts=("", "good film", "good " * 8))
    golden = replace(golden, inputs=inputs, probabilities=right)

    def judged(gap):
        found = right.copy()
        found[row] += [-gap, gap]
        return golden.judge(variant, Answers(probabilities=found), Budget())

    assert judged(allowed) == []
    (reason,) = judged(refused)
    assert kind in reason
    assert "1 of 3 golden vectors" in reason


def flipped(golden, rows, *, of):
    """Golden vectors of one class, and answers that give the first rows the other class."""
    texts = tuple(f"good film {row}" for row in range(of))
    right = np.tile([0.9, 0.1], (of, 1))
    found = right.copy()
    found[:rows] = [0.1, 0.9]
    return replace(golden, inputs=replace(golden.inputs, texts=texts), probabilities=right), found


@pytest.mark.parametrize(("rows", "refused"), [(2, False), (3, True)])
def test_integer_arithmetic_may_move_one_input_in_ten(golden, rows, refused):
    golden, found = flipped(golden, rows, of=20)
    assert bool(golden.judge("int8", Answers(probabilities=found, step=1 / 256), Budget())) == refused
    assert golden.judge("dynamic", Answers(probabilities=found), Budget())


@pytest.mark.parametrize(("rows", "refused"), [(2, False), (3, True)])
def test_rounding_may_move_two_of_all_drawn_inputs_and_an_exact_variant_none(golden, rows, refused):
    golden, found = flipped(golden, rows, of=150)
    assert bool(golden.judge("dynamic", Answers(probabilities=found), Budget())) == refused
    (reason,) = golden.judge("float32", Answers(probabilities=found), Budget())
    assert f"{rows} of 150 golden vectors" in reason


def test_rows_that_cannot_be_measured_are_refused(golden):
    (reason,) = golden.judge("text", Answers(probabilities=np.array([[np.nan, 0.5], [0.1, 0.9]])), Budget())
    assert "on golden vectors, some probabilities are not finite" in reason


@pytest.mark.parametrize("content", ["", "[]", '{"inputs": []}', "{", "[" * 100_000])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "golden.json").write_text(content)
    with pytest.raises(ReleaseError, match=r"golden\.json cannot be read"):
        Golden.load(tmp_path / "golden.json")


@pytest.mark.parametrize(
    ("key", "value"), [("answers", []), ("answers", {"text": {}}), ("inputs", [1]), ("temperature", 10**400)]
)
def test_an_entry_of_another_kind_is_named(tmp_path, golden, key, value):
    golden.save(tmp_path / "golden.json")
    content = json.loads((tmp_path / "golden.json").read_text())
    (tmp_path / "golden.json").write_text(json.dumps({**content, key: value}))
    with pytest.raises(ReleaseError, match=r"golden\.json cannot be read"):
        Golden.load(tmp_path / "golden.json")
