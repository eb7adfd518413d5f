"""Robust accuracy of text classifiers: words, letters and embeddings."""

import numpy as np
import pytest

from tfapp.data.text import TextSplit
from tfapp.errors import ConfigError
from tfapp.evaluation.robustness import evaluate_robustness, robustness_curve
from tfapp.evaluation.robustness.text_model import TextModel
from tfapp.training.inference import predict_logits

GOOD, BAD = ["good", "great", "fine", "happy", "best"], ["bad", "awful", "poor", "sad", "worst"]
REST = ["the", "film", "movie", "story", "plot", "actor", "scene", "music", "song", "team", "game"]


@pytest.fixture
def model(tiny_classifier):
    """A random encoder with a steep head, so that its answers differ from text to text."""
    head = tiny_classifier.layers[-1]
    kernel, bias = head.get_weights()
    head.set_weights([kernel * 40, bias])
    head.set_weights([kernel * 40, -predict_logits(tiny_classifier, draw_texts(seed=1)).mean(axis=0)])
    return tiny_classifier


def draw_texts(*, seed):
    generator = np.random.default_rng(seed)
    words = [*GOOD, *BAD, *REST]
    return tuple(" ".join(generator.choice(words, generator.integers(5, 12))) for _ in range(30))


@pytest.fixture
def split(model):
    texts = draw_texts(seed=0)
    labels = predict_logits(model, texts).argmax(axis=1).astype(np.int32)
    labels[:3] = (labels[:3] + 1) % 3
    return TextSplit("test", texts, labels, model.classes)


def swap_moods(predict_fn, texts, labels, *, max_changed, seed):
    """Changes each good word for a bad one."""
    table = dict(zip(GOOD, BAD, strict=True))
    made = [" ".join(table.get(word, word) for word in text.split()) for text in texts]

    class Found:
        pass

    Found.texts = made
    return Found


def test_answers_are_those_of_the_model_whatever_stands_beside_a_text(model, split):
    ask = TextModel(model, batch_size=4)
    logits = predict_logits(model, split.texts)
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        ask(split.texts), expected / expected.sum(axis=1, keepdims=True), rtol=1e-4, atol=1e-6
    )
    assert ask([]).shape == (0, 3)
    assert ask.queries == len(split)


def test_what_counts_is_what_the_model_answers_to_the_changed_text(model, split):
    result = evaluate_robustness(model, split, attack=swap_moods, examples=30)
    assert result.clean_accuracy == 0.9
    made = swap_moods(None, split.texts, split.labels, max_changed=1.0, seed=0).texts
    survived = (predict_logits(model, made).argmax(axis=1) == split.labels) & (np.arange(30) >= 3)
    assert result.robust_accuracy == pytest.approx(survived.mean())
    assert result.attack == "swap_moods"
    assert (result.norm, result.epsilon) == ("words", 0.2)
    assert result.adversarial[0] == split.texts[0]  # wrong before, so not attacked
    for example in result.worst:
        assert example.adversarial != example.original == split.texts[example.row]
        assert example.predicted != example.label == model.classes[split.labels[example.row]]


def test_letters_and_the_budget_of_queries(model, split):
    result = evaluate_robustness(model, split, attack="character_edits", epsilon=0.4, seed=1)
    (figures,) = result.per_attack
    assert result.robust_accuracy < result.clean_accuracy
    assert figures.settings["edits"] == "swap drop insert keyboard homoglyph"
    assert "min_similarity" not in figures.settings
    assert result.alarms == ()
    cut = evaluate_robustness(model, split, attack="character_edits", epsilon=0.4, max_queries=2, seed=1)
    assert cut.per_attack[0].settings["max_queries"] == 2
    assert [alarm.name for alarm in cut.alarms] == ["search_cut_short"]
    assert cut.robust_accuracy >= result.robust_accuracy


def test_the_standard_attack_on_texts_is_words_and_then_letters(model, split):
    def lexicon(words):
        return [BAD if word in GOOD else () for word in words]

    result = evaluate_robustness(
        model, split, epsilon=0.5, similarity_fn=None, options={"candidates": lexicon, "max_queries": 50}
    )
    assert [figures.name for figures in result.per_attack] == ["word_substitution", "character_edits"]
    first, second = result.per_attack
    assert second.attacked == first.attacked - first.fooled
    assert first.settings == {"max_queries": 50}
    assert "steps none, restarts none" in result.settings_text


def test_the_figures_on_embeddings_fall_with_epsilon(model, split):
    def measure(epsilon, **options):
        return evaluate_robustness(model, split, attack="embedding_pgd", epsilon=epsilon, **options)

    small = measure(1e-6, alarms=False)
    some = measure(0.02, batch_size=8)
    assert small.robust_accuracy == small.clean_accuracy == 0.9
    assert 0.9 > some.robust_accuracy > measure(0.2, alarms=False).robust_accuracy
    assert some.adversarial is None
    assert some.norm == "relative l2"
    assert some.queries == 3 * 30
    assert some.alarms == ()
    assert "does_not_fall_to_zero" in some.checked


def test_a_curve_of_an_attack_on_embeddings_starts_at_its_own_epsilon(model, split):
    curve = robustness_curve(model, split, attack="embedding_pgd", examples=10, num_steps=1)
    assert [point.epsilon for point in curve.points] == pytest.approx([0.025, 0.05, 0.1, 0.2, 0.4])
    assert curve.points[0].domain == "embeddings"
    words = robustness_curve(model, split, attack="character_edits", epsilon=0.5, examples=4)
    assert [point.epsilon for point in words.points] == [0.125, 0.25, 0.5, 1.0]


def test_edits_may_keep_to_similar_sentences(model, split):
    asked = []

    def nothing_is_similar(originals, candidates):
        asked.extend(candidates)
        return np.zeros(len(candidates))

    result = evaluate_robustness(
        model, split, attack="character_edits", options={"similarity_fn": nothing_is_similar}
    )
    assert result.robust_accuracy == result.clean_accuracy
    assert asked


def test_padding_does_not_matter_to_an_attack_without_a_draw(model, split):
    few, many = (
        evaluate_robustness(model, split, attack="embedding_fgm", epsilon=0.05, batch_size=size, alarms=False)
        for size in (4, 30)
    )
    np.testing.assert_array_equal(few.predicted, many.predicted)


def test_texts_that_no_attack_can_touch_raise_an_alarm(model):
    texts = ("the film", "a plot", "one actor", *draw_texts(seed=0)[:20])
    labels = predict_logits(model, texts).argmax(axis=1).astype(np.int32)
    short = evaluate_robustness(
        model, TextSplit("test", texts, labels, model.classes), attack="character_edits", epsilon=0.4
    )
    assert [alarm.name for alarm in short.alarms] == ["nothing_to_try"]
    assert "3 of 23 rows" in short.alarms[0].message
    assert short.checked == ("search_cut_short", "nothing_to_try")
    long = TextSplit("test", texts[2:], labels[2:], model.classes)
    assert evaluate_robustness(model, long, attack="character_edits", epsilon=0.4).alarms == ()


def test_the_edits_of_chinese_words_are_stated_where_they_ran(model):
    texts = ("这个电影很好看", "the film and its music")
    labels = predict_logits(model, texts).argmax(axis=1).astype(np.int32)
    result = evaluate_robustness(
        model, TextSplit("test", texts, labels, model.classes), attack="character_edits"
    )
    assert "homoglyph zh_" in result.per_attack[0].settings["edits"]
    assert "zh_lookalike" in result.per_attack[0].settings["edits"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attack": "pgd"}, "unknown attack on texts 'pgd'"),
        ({"epsilon": 1.5}, "share that may change"),
        ({"norm": "l2"}, "norm = 'l2'"),
        ({"attack": "character_edits", "num_steps": 3}, "num_steps = 3: the attack 'character_edits'"),
        ({"options": {"max_querys": 3}}, "no setting 'max_querys'; did you mean 'max_queries'"),
        ({"max_queries": 0}, "max_queries = 0: it must be 1 or more"),
        ({"max_seconds": 0.0}, r"max_seconds = 0\.0: it must be a positive number"),
        ({"attack": "embedding_fgm", "max_queries": 3}, "max_queries = 3: the attack 'embedding_fgm' has no"),
        ({"attack": "embedding_fgm", "options": {"num_steps": 3}}, "no setting 'num_steps'"),
        ({"attack": "embedding_fgm", "options": {"mask": 1}}, "'mask' is set by .*; leave it out"),
        ({"options": {"max_changed": 0.5}}, "'max_changed' is set by .* on words; give epsilon instead"),
        ({"attack": swap_moods, "options": {"seed": 1}}, "'seed' is set by .*; give seed instead"),
        ({"options": {"similarity_fn": None}}, "'similarity_fn' is set by .*; give similarity_fn instead"),
        ({"similarity_fn": "minilm"}, "similarity_fn = 'minilm': give 'minilm-l6', a function"),
    ],
)
def test_wrong_arguments_are_refused_by_name(model, split, options, said):
    with pytest.raises(ConfigError, match=said):
        evaluate_robustness(model, split, **options)
