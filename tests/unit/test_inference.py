"""Logits of many texts: in the order asked for, cut where the model cuts, whatever the batches."""

import numpy as np
import pytest
import tensorflow as tf

from tfapp.training.inference import gather_outputs, input_rows, predict_logits

TEXTS = ["the film was great", "", "the team won the cup and the coach said it was good", "bank", "x y z"]


@pytest.mark.parametrize("batch_size", [1, 2, 128])
def test_logits_come_in_the_order_of_the_texts(tiny_classifier, batch_size):
    logits = predict_logits(tiny_classifier, TEXTS, batch_size=batch_size)
    assert (logits.shape, logits.dtype) == ((5, 3), np.float32)
    for row, text in enumerate(TEXTS):
        alone = tiny_classifier(tiny_classifier.preprocessor(tf.constant([text])))
        np.testing.assert_allclose(logits[row], alone[0], atol=1e-5, err_msg=text)


def test_texts_are_cut_at_the_models_length(tiny_classifier):
    tiny_classifier.preprocessor.max_length = 5
    shortened = ["the film was", "", "the team won", "bank", "x y z"]
    expected = predict_logits(tiny_classifier, shortened)
    np.testing.assert_allclose(predict_logits(tiny_classifier, TEXTS), expected, atol=1e-5)


def test_the_logits_of_windows_are_averaged(tiny_classifier):
    tokenizer = tiny_classifier.preprocessor
    tokenizer.max_length, tokenizer.long_texts = 6, "windows"
    words = ["the", "coach", "said", "it", "was", "good", "and", "the", "team", "was", "the", "film"]
    texts = ["the film was great", "", " ".join(words), "bank"]
    logits = predict_logits(tiny_classifier, texts, batch_size=2)
    tokenizer.long_texts = "truncate"
    assert len(words) == 12
    for row, text in enumerate(texts):
        parts = [" ".join(words[start : start + 4]) for start in (0, 3, 6, 9)] if row == 2 else [text]
        alone = predict_logits(tiny_classifier, parts)
        np.testing.assert_allclose(logits[row], alone.mean(axis=0), atol=1e-5, err_msg=text)


def test_no_text_has_no_logits(tiny_classifier):
    logits = predict_logits(tiny_classifier, [])
    assert (logits.shape, logits.dtype) == ((0, 3), np.float32)


def test_several_outputs_are_gathered_by_name(tiny_classifier):
    lower, _ = tiny_classifier.split("head")
    rows = input_rows(tiny_classifier, tiny_classifier.preprocessor.encode(TEXTS))
    gathered = gather_outputs(lower, rows, batch_size=2)
    assert {name: values.shape for name, values in gathered.items()} == {"features": (5, 32)}


def test_rows_hold_what_the_model_declares(tiny_classifier):
    class Model:
        preprocessor = tiny_classifier.preprocessor
        input = {"padding_mask": None, "token_ids": None}  # noqa: RUF012 - read only

    rows = input_rows(Model, tiny_classifier.preprocessor.encode(TEXTS))
    assert set(rows.gather(tf.constant([0]))) == {"padding_mask", "token_ids"}
