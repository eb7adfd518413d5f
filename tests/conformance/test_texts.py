"""Every capability for texts, held to the same facts in each language of `cases.TEXT_CASES`."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from cases import TEXT_CASES
from helpers import tiny_text_classifier

from tfapp.attacks.words import character_edits, word_substitution
from tfapp.data.augment import TextAugmentation
from tfapp.data.cleaning import text_key
from tfapp.data.edits import random_edits
from tfapp.data.text import load_text_data
from tfapp.data.text_duplicates import near_duplicates
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.evaluation import evaluate
from tfapp.release import export, verify
from tfapp.serving import load_release
from tfapp.training import Phase, train
from tfapp.training.inference import predict_logits


@pytest.fixture(scope="module", params=TEXT_CASES.values(), ids=TEXT_CASES)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def data(case):
    return load_text_data(list(zip(case.texts, case.labels, strict=True)), test_fraction=0.3, seed=1)


@pytest.fixture(scope="module")
def trained(case, data):
    """A tiny random BERT that was trained until it tells the opinions apart."""
    model = tiny_text_classifier(
        case.vocabulary,
        data.classes,
        width=32,
        dropout=0.0,
        tokenizer=WordPieceTokenizer(case.vocabulary, max_length=24),
    )
    history = train(
        model,
        data,
        phases=[Phase("all", epochs=12, learning_rate=5e-3)],
        batch_size=8,
        keep_best=False,
        seed=1,
    )
    return model, history


@pytest.fixture(scope="module")
def released(case, data, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp(case.name) / "reviews"
    return export(
        trained[0],
        folder,
        check_with=data.test,
        variants=["saved_model", "text"],
        web=False,
        seed=1,
    )


def test_every_text_is_split_into_known_pieces(case):
    tokenizer = WordPieceTokenizer(case.vocabulary)
    pieces = np.array(case.vocabulary)[tokenizer.tokenize(tf.constant(case.texts[:1])).to_list()[0]]
    assert tuple(pieces) == case.split
    ids = tokenizer(tf.constant(case.texts))["token_ids"].numpy()
    assert tokenizer.unk_id not in ids


def test_files_in_the_languages_encodings_give_the_same_rows(case, tmp_path):
    rows = "".join(f'"{text}",{label}\n' for text, label in zip(case.texts, case.labels, strict=True))
    for encoding in case.encodings:
        path = tmp_path / f"{encoding}.csv"
        path.write_bytes(f"text,label\n{rows}".encode("gb18030" if encoding == "auto" else encoding))
        loaded = load_text_data(path, encoding=encoding, seed=1)
        assert set(loaded.classes) == set(case.classes)
        splits = (loaded.train, loaded.validation, loaded.test)
        assert sorted(text for split in splits for text in split.texts) == sorted(case.texts)


def test_copies_conflicts_and_empty_texts_are_cleaned(case):
    first, other = case.classes
    rows = list(zip(case.texts, case.labels, strict=True))
    rows += [(f" {case.texts[0]}\n", case.labels[0]), ("　 ", first)]
    rows += [(case.near_copy, first), (case.near_copy, other)]
    loaded = load_text_data(rows, seed=1)
    assert {entry.reason: entry.rows for entry in loaded.report.dropped} == {
        "empty text": 1,
        "conflicting labels": 2,
        "duplicate": 1,
    }
    assert text_key(f" {case.texts[0]}\n") == case.texts[0]


def test_a_copy_with_other_signs_and_widths_is_a_near_duplicate(case):
    alone = near_duplicates([case.texts[0], "".join(reversed(case.texts[0]))])
    assert alone.tolist() == [0, 1]
    assert near_duplicates([case.texts[0], case.near_copy]).tolist() == [0, 0]


def test_edits_change_words_alike_for_one_seed_and_leave_the_rest(case):
    def edited():
        return [random_edits(text, np.random.default_rng(3), 0.3, case.edits) for text in case.texts]

    changed = edited()
    assert changed == edited()
    assert sum(new != old for new, old in zip(changed, case.texts, strict=True)) > 0.8 * len(changed)
    assert random_edits(case.texts[0], np.random.default_rng(3), 0.0, case.edits) == case.texts[0]


def test_augmentation_changes_the_share_of_texts_that_is_asked_for(case):
    augmentation = TextAugmentation(edits=list(case.edits), edit_share=0.3, edit_fraction=0.5)
    changed = augmentation.change(list(case.texts) * 10, seed=1)
    share = np.mean([new != old for new, old in zip(changed, case.texts * 10, strict=True)])
    # Half of 600 texts: three standard deviations are 6 %; a few edits give a word back.
    assert 0.38 < share < 0.56


def test_training_tells_the_classes_apart(data, trained):
    model, _ = trained
    assert evaluate(model, data.test, num_bootstrap=20).accuracy.value > 0.9


def test_word_attacks_find_what_the_model_hangs_on(case, data, trained):
    model, _ = trained

    def predict(texts):
        return tf.nn.softmax(predict_logits(model, tuple(texts))).numpy()

    def candidates(words):
        pairs = case.attack_words.items()
        return [[word.replace(old, new) for old, new in pairs if old in word] for word in words]

    texts = [text for text in case.texts if any(word in text for word in case.attack_words)][:10]
    labels = predict(texts).argmax(axis=1)
    found = word_substitution(predict, texts, labels, candidates=candidates, similarity_fn=None)
    assert all(found.queries)
    for old, new, places in zip(texts, found.texts, found.changed, strict=True):
        assert (old != new) == bool(places)
    edited = character_edits(predict, texts, labels, edits=case.edits, max_queries=20, seed=1)
    assert not edited.untouched.any()
    assert edited.queries.max() <= 20


def test_every_artifact_answers_as_the_model_and_the_names_survive(case, data, trained, released):
    assert released.path.name == "1"
    assert verify(released.path).ok
    predictor = load_release(released.path)
    assert predictor.classes == data.classes == case.classes
    texts = data.test.texts[:8]
    expected = [case.classes[index] for index in predict_logits(trained[0], texts).argmax(axis=1)]
    assert [answer.label for answer in predictor.predict(list(texts))] == expected
    labels = (released.path / "edge" / "labels.txt").read_text("utf-8").splitlines()
    assert tuple(labels) == case.classes
