"""Texts that are changed anew in every epoch, and encoded when a batch needs them."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfapp.data.augment import TextAugmentation, make_text_augmentation
from tfapp.data.bucketing import TokenRows, training_batches
from tfapp.data.edits import make_synonym_edit
from tfapp.data.text_rows import TextRows
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import ConfigError

WORDS = [
    "market",
    "bank",
    "price",
    "profit",
    "team",
    "goal",
    "match",
    "coach",
    "phone",
    "network",
    "site",
    "user",
]
TEXTS = [" ".join(WORDS[(row + shift) % 12] for shift in range(3 + row % 6)) for row in range(40)]
LABELS = np.arange(40, dtype=np.int32) % 3
EDITS = TextAugmentation(edits=["swap", "keyboard"], edit_share=0.4, edit_fraction=0.5)
INPUTS = ("token_ids", "padding_mask")


@pytest.fixture(scope="module")
def tokenizer(tiny_vocab):
    return WordPieceTokenizer(tiny_vocab, max_length=24)


def epochs_of(augmentation, tokenizer, *, epochs, first=0, seed=3, **options):
    rows = TextRows(TEXTS, tokenizer.encode(TEXTS).lengths)
    augment = augmentation.for_batches(tokenizer, inputs=INPUTS, **options)
    dataset = training_batches(rows, LABELS, batch_size=8, seed=seed, first_epoch=first, augment=augment)
    batches = list(dataset.take(5 * epochs).as_numpy_iterator())
    return [batches[5 * epoch : 5 * epoch + 5] for epoch in range(epochs)]


def texts_of(batch, tokenizer):
    pieces = np.array(tokenizer.vocabulary)
    ids, mask = batch["token_ids"], batch["padding_mask"].astype(bool)
    return [
        " ".join(pieces[row[present]][1:-1]).replace(" ##", "")
        for row, present in zip(ids, mask, strict=True)
    ]


def test_the_seed_decides_the_changes_and_the_fractions_hold():
    many = TEXTS * 25
    changed = EDITS.change(many, seed=1)
    assert changed == EDITS.change(many, seed=1)
    assert changed != EDITS.change(many, seed=2)
    edited = np.mean([text != other for text, other in zip(many, changed, strict=True)])
    assert edited == pytest.approx(0.5, abs=0.06)  # 1,000 texts: 4 standard deviations
    words = [
        np.mean([word != other for word, other in zip(text.split(), new.split(), strict=True)])
        for text, new in zip(many, changed, strict=True)
        if text != new
    ]
    assert np.mean(words) == pytest.approx(0.4, abs=0.03)
    assert EDITS.change(many, seed=1, always=True) != changed


def test_corruptions_are_drawn_with_their_severities():
    loud = TextAugmentation(corruptions=["case", "emoji"], severity=5, corruption_fraction=1.0)
    changed = loud.change(TEXTS, seed=0)
    kinds = [text.isascii() for text in changed]
    assert 5 < sum(kinds) < 35
    assert all(text != other for text, other in zip(TEXTS, changed, strict=True) if not other.isascii())


@pytest.mark.parametrize("edits", [[], ["swap"]])
def test_where_every_text_is_to_change_corruptions_do_so_too(edits):
    rare = TextAugmentation(edits=edits, corruptions=["emoji"], corruption_fraction=0.0, edit_fraction=0.0)
    assert rare.change(TEXTS, seed=0) == TEXTS
    assert not any(text.isascii() for text in rare.change(TEXTS, seed=0, always=True))


def test_every_variant_of_a_corrupted_text_is_changed(tokenizer):
    loud = TextAugmentation(corruptions=["emoji"], corruption_fraction=0.5)
    (found,) = epochs_of(loud, tokenizer, epochs=1, variants=3)
    for inputs, _ in found:
        lengths = inputs["padding_mask"].sum(axis=1)
        assert (inputs["variants"]["padding_mask"].sum(axis=2) > lengths[:, None]).all()


def test_every_epoch_has_the_same_rows_changed_anew(tokenizer):
    first, second = epochs_of(EDITS, tokenizer, epochs=2)
    seen = []
    for epoch in (first, second):
        found = {}
        for inputs, labels in epoch:
            found.update(zip(texts_of(inputs, tokenizer), labels.tolist(), strict=True))
        seen.append(found)
        assert sum(len(labels) for _, labels in epoch) == 40
    untouched = [sum(text in TEXTS for text in found) for found in seen]
    assert all(10 <= count <= 30 for count in untouched)
    assert set(seen[0]) != set(seen[1])
    for found in seen:
        for text, label in found.items():
            if text in TEXTS:
                assert label == LABELS[TEXTS.index(text)]


def test_a_resumed_run_sees_the_texts_of_an_unbroken_one(tokenizer):
    unbroken = epochs_of(EDITS, tokenizer, epochs=3)
    resumed = epochs_of(EDITS, tokenizer, epochs=2, first=1)
    for epoch, other in zip(unbroken[1:], resumed, strict=True):
        for (inputs, labels), (again, labels_again) in zip(epoch, other, strict=True):
            np.testing.assert_array_equal(labels, labels_again)
            for name in INPUTS:
                np.testing.assert_array_equal(inputs[name], again[name])


def test_widths_are_rounded_and_cut_as_those_of_plain_rows(tokenizer):
    nothing = TextAugmentation(edits=["swap"], edit_fraction=0.0)
    for pad_to in (1, 2, 5):  # the longest text has 10 tokens, beyond which plain rows are not padded
        plain = TokenRows(tokenizer.encode(TEXTS), pad_id=tokenizer.pad_id, inputs=INPUTS, pad_to=pad_to)
        expected = training_batches(plain, LABELS, batch_size=8, seed=3).take(5).as_numpy_iterator()
        (found,) = epochs_of(nothing, tokenizer, epochs=1, pad_to=pad_to)
        for (inputs, labels), (others, other_labels) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(labels, other_labels)
            for name in INPUTS:
                np.testing.assert_array_equal(inputs[name], others[name])
    longer = TextAugmentation(edits=["insert"], edit_share=1.0, edit_fraction=1.0)
    widths = [
        inputs["token_ids"].shape[1] for inputs, _ in epochs_of(longer, tokenizer, epochs=1, pad_to=16)[0]
    ]
    assert max(widths) == tokenizer.max_length


def test_variants_stand_beside_the_texts_as_they_are(tokenizer):
    (found,) = epochs_of(EDITS, tokenizer, epochs=1, variants=3)
    different = []
    for inputs, labels in found:
        texts = texts_of(inputs, tokenizer)
        assert [LABELS[TEXTS.index(text)] for text in texts] == labels.tolist()
        variants = inputs["variants"]
        assert set(variants) == set(INPUTS)
        assert variants["token_ids"].shape[:2] == (len(labels), 3)
        assert variants["padding_mask"].shape == variants["token_ids"].shape
        for row, text in enumerate(texts):
            made = texts_of({name: values[row] for name, values in variants.items()}, tokenizer)
            different.append(len({text, *made}))
            assert all(len(text) - 2 * len(text.split()) <= len(one) for one in made)
    assert np.mean(different) > 2.5  # the text and three variants, most of them different


def test_views_are_encoded_one_after_another(tokenizer):
    views = EDITS.encode_views(TEXTS, tokenizer, views=3, seed=5)
    assert len(views) == 120
    again = EDITS.encode_views(TEXTS, tokenizer, views=2, seed=5)
    np.testing.assert_array_equal(again.values, views.values[: len(again.values)])
    assert again.fingerprint() != EDITS.encode_views(TEXTS, tokenizer, views=2, seed=6).fingerprint()


def test_texts_of_any_writing_pass(tokenizer):
    odd = ["", "好看的电影", "naïve café", "🙂 ok", "a\tb\nc"]
    rows = TextRows(odd, tokenizer.encode(odd).lengths)
    augment = TextAugmentation(
        edits=["swap", "zh_swap"], corruptions=["typos", "asr"], edit_fraction=1.0, corruption_fraction=1.0
    ).for_batches(tokenizer, inputs=INPUTS)
    inputs, _ = augment(rows.gather(tf.range(5)), tf.zeros(5, tf.int32), tf.constant([-5, 2**40], tf.int64))
    assert inputs["token_ids"].shape[0] == 5
    empty, _ = augment(rows.gather(tf.range(0)), tf.zeros(0, tf.int32), tf.constant([1, 2], tf.int64))
    assert empty["token_ids"].shape[0] == 0


def test_descriptions_hold_what_is_switched_on():
    assert TextAugmentation().described() == {}
    assert TextAugmentation(severity=5).described() == {}
    assert EDITS.described() == {"edits": ["swap", "keyboard"], "edit_share": 0.4, "edit_fraction": 0.5}
    halves = [TextAugmentation(edits=[make_synonym_edit(half)]).described() for half in ("first", "second")]
    assert halves[0] != halves[1]
    assert make_text_augmentation({"severity": 2}) is None
    assert make_text_augmentation({"edits": ["swap"]}) == TextAugmentation(edits=("swap",))
    assert make_text_augmentation("none") is make_text_augmentation(None) is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"edits": ["swop"]}, "swap"),
        ({"edits": "swap"}, "give a list"),
        ({"edits": [3]}, "edit 3: give one of"),
        ({"corruptions": ["typo"]}, "typos"),
        ({"corruptions": "typos"}, "list of names"),
        ({"corruptions": ["typos"], "severity": 6}, "severity = 6"),
        ({"edits": ["swap"], "edit_share": 1.5}, "edit_share = 1.5"),
        ({"edit_fraction": True}, "edit_fraction = True"),
        ({"rotation": 10}, "unknown augmentation setting of texts 'rotation'"),
        ("light", "presets are for images"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        make_text_augmentation(setting)
