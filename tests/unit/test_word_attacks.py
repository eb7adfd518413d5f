"""Attacks on strings: facts about their budgets and what they find."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest

from tfapp.attacks.words import (
    WORD_ATTACKS,
    WordAttackResult,
    character_edits,
    default_edits,
    word_substitution,
)
from tfapp.attacks.words.character_edits import CHARACTER_EDITS
from tfapp.data.edits import _chinese, segment
from tfapp.errors import ConfigError

# A bag of words: what each word adds to the logit of class 1. In capital letters it adds nothing.
_WEIGHTS = {f"good{i}": float(i) for i in range(1, 6)} | {f"bad{i}": -float(i) for i in range(1, 6)}
_WORDS = [*_WEIGHTS, *(f"plain{i}" for i in range(10))]


class BagOfWords:
    """A model whose answer is a sum over words; it remembers what it was asked."""

    def __init__(self, bias: float = 0.25) -> None:
        self.bias = bias
        self.calls: list[list[str]] = []

    def __call__(self, texts: list[str]) -> npt.NDArray[np.float64]:
        self.calls.append(texts)
        logits = [self.bias + sum(_WEIGHTS.get(word, 0.0) for word in segment(t).words) for t in texts]
        one = 1 / (1 + np.exp(-np.array(logits)))
        return np.stack([1 - one, one], axis=1)

    @property
    def asked(self) -> list[str]:
        return [text for call in self.calls for text in call]


def _upper(words: Sequence[str]) -> list[list[str]]:
    return [[word.upper()] if not word.isupper() else [] for word in words]


def _texts(count: int, words: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [", ".join(rng.choice(_WORDS, words)) + "!" for _ in range(count)]


def _labels(model: Callable[[list[str]], npt.NDArray[np.float64]], texts: list[str]) -> npt.NDArray[np.int64]:
    return model(texts).argmax(axis=1)


def _worst(text: str, label: int, model: BagOfWords, most: int) -> bool:
    """Whether any way of leaving at most so many words' weights out makes the answer wrong."""
    found = segment(text)
    for chosen in itertools.combinations(range(len(found.words)), most):
        changed = found.join({at: found.words[at].upper() for at in chosen})
        if int(model([changed])[0].argmax()) != label:
            return True
    return False


def test_the_worst_case_of_a_sum_over_words_is_reached() -> None:
    texts = _texts(60, 10)
    labels = _labels(BagOfWords(), texts)
    found = word_substitution(BagOfWords(), texts, labels, candidates=_upper, similarity_fn=None)
    worst = [_worst(text, label, BagOfWords(), 2) for text, label in zip(texts, labels, strict=True)]
    assert found.success.tolist() == worst
    assert 10 < sum(worst) < 50, "the test would say nothing"


@pytest.mark.parametrize("name", WORD_ATTACKS)
@pytest.mark.parametrize("max_changed", [0.0, 0.1, 0.2, 0.5, 1.0])
def test_no_more_words_change_than_allowed_and_only_those_listed(name: str, max_changed: float) -> None:
    own = {"candidates": _upper, "similarity_fn": None} if name == "word_substitution" else {}
    for words in (1, 4, 5, 11):
        texts = _texts(12, words, seed=words)
        labels = _labels(BagOfWords(), texts)
        model = BagOfWords()
        found = WORD_ATTACKS[name](model, texts, labels, max_changed=max_changed, **own)
        for text, result, success, changed in zip(
            texts, found.texts, found.success, found.changed, strict=True
        ):
            before, after = segment(text), segment(result)
            assert before.separators == after.separators
            differing = [at for at in range(words) if before.words[at] != after.words[at]]
            assert tuple(differing) == changed
            assert len(differing) <= max_changed * words
            assert bool(differing) == bool(success)
        again = BagOfWords()(found.texts).argmax(axis=1)
        np.testing.assert_array_equal(again != labels, found.success)


def test_twenty_per_cent_of_fifteen_words_are_three() -> None:
    text = " ".join(["good1"] * 15)
    found = word_substitution(
        BagOfWords(bias=-12.5), [text], [1], candidates=_upper, similarity_fn=None, max_changed=0.2
    )
    assert len(found.changed[0]) == 3


def test_texts_that_are_wrong_already_stay_and_cost_one_query() -> None:
    texts = _texts(20, 10)
    labels = 1 - _labels(BagOfWords(), texts)
    model = BagOfWords()
    found = character_edits(model, texts, labels)
    assert found.texts == texts
    assert not found.success.any()
    assert not found.clean_correct.any()
    assert found.changed == [()] * 20
    assert found.queries.tolist() == [1] * 20
    assert len(model.calls) == 1


@pytest.mark.parametrize("limit", [1, 2, 7, 20])
@pytest.mark.parametrize("name", WORD_ATTACKS)
def test_the_budget_of_queries_holds_for_every_text(name: str, limit: int) -> None:
    own = {"candidates": _upper, "similarity_fn": None} if name == "word_substitution" else {}
    for text in _texts(10, 20, seed=5):
        model = BagOfWords()
        label = int(BagOfWords()([text])[0].argmax())
        found = WORD_ATTACKS[name](model, [text], [label], max_queries=limit, **own)
        assert found.queries[0] == len(set(model.asked)) == len(model.asked) <= limit
        free = WORD_ATTACKS[name](BagOfWords(), [text], [label], **own)
        if not found.success[0]:
            assert found.out_of_budget[0] == (free.queries[0] > limit)
            assert found.texts == [text]


@pytest.mark.parametrize("calls_in_time", [1, 4, 9])
def test_time_ends_the_search_after_the_running_call(
    calls_in_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    model = BagOfWords()

    def slow(texts: list[str]) -> npt.NDArray[np.float64]:
        clock[0] += 1.0
        return model(texts)

    texts = _texts(30, 20)
    labels = _labels(BagOfWords(), texts)
    found = character_edits(slow, texts, labels, max_seconds=calls_in_time, batch_size=10)
    # The three calls for the originals are made in any case.
    assert len(model.calls) == max(3, calls_in_time)
    assert found.seconds == len(model.calls)
    assert found.clean_correct.all()
    assert found.out_of_budget.any()
    assert not (found.out_of_budget & found.success).any()
    answers = BagOfWords()(found.texts).argmax(axis=1)
    np.testing.assert_array_equal(answers != labels, found.success)
    assert found.queries.sum() >= len(model.asked)
    free = character_edits(BagOfWords(), texts, labels, batch_size=10)
    assert not free.out_of_budget.any()
    np.testing.assert_array_equal(found.out_of_budget, (free.queries > found.queries) & ~found.success)


def test_time_that_ends_while_sentences_are_compared_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def slow(originals: list[str], candidates: list[str]) -> npt.NDArray[np.float64]:
        clock[0] += 1.0
        return np.ones(len(originals))

    texts = ["good5 b c d e", "good4 b c d e f"]
    found = word_substitution(
        BagOfWords(-0.5), texts, [1, 1], candidates=_upper, similarity_fn=slow, max_seconds=1, batch_size=1
    )
    assert found.success.tolist() == [False, False]
    assert found.out_of_budget.tolist() == [True, True]


def test_questions_come_in_batches_and_none_twice_in_a_step() -> None:
    texts = [*_texts(40, 12), *_texts(40, 12)]
    labels = _labels(BagOfWords(), texts)
    model = BagOfWords()
    found = character_edits(model, texts, labels, batch_size=64, edits=["swap"])
    for call in model.calls:
        assert len(set(call)) == len(call) <= 64
    # The originals, the ranking, and at most one step for each of the 12 words: each in full batches but one.
    steps = 14
    assert len(model.calls) <= len(model.asked) / 64 + steps
    # Each text is there twice and answered for both.
    assert found.texts[:40] == found.texts[40:]
    assert len(model.asked) <= found.queries.sum() / 2


@pytest.mark.parametrize("name", WORD_ATTACKS)
def test_a_texts_result_depends_on_the_seed_and_not_on_the_other_texts(name: str) -> None:
    words = name == "word_substitution"
    own = {"candidates": _upper, "similarity_fn": None} if words else {"edits": ["insert"]}
    texts = _texts(15, 10)
    labels = _labels(BagOfWords(), texts)

    def run(some: list[str], numbers: npt.NDArray[np.int64], seed: int) -> WordAttackResult:
        return WORD_ATTACKS[name](BagOfWords(), some, numbers, seed=seed, **own)

    one = run(texts, labels, 0)
    assert one.texts == run(texts, labels, 0).texts
    assert one.texts[::-1] == run(texts[::-1], labels[::-1], 0).texts
    assert one.texts[4:5] == run(texts[4:5], labels[4:5], 0).texts
    if name == "character_edits":
        assert one.texts != run(texts, labels, 1).texts


def test_the_most_similar_of_the_candidates_that_fool_is_taken() -> None:
    def candidates(words: Sequence[str]) -> list[list[str]]:
        return [["far", "near", "nearer", "TOO"] if word == "good5" else [] for word in words]

    cosines = {"far": 0.81, "near": 0.9, "nearer": 0.95, "TOO": 0.79}

    def similarity(originals: list[str], others: list[str]) -> list[float]:
        assert set(originals) == {text}
        return [next(cosines[word] for word in segment(other).words if word in cosines) for other in others]

    text = "a plain good5 b c"
    model = BagOfWords(bias=-1)
    found = word_substitution(model, [text], [1], candidates=candidates, similarity_fn=similarity)
    assert found.texts == ["a plain nearer b c"]
    assert found.similarity.tolist() == [0.95]
    assert found.changed == [(2,)]
    assert "a plain TOO b c" not in model.asked, "what is not similar enough is not asked about"
    assert found.queries[0] == 1 + 1 + 3


def test_a_step_that_does_not_hurt_is_not_taken() -> None:
    def candidates(words: Sequence[str]) -> list[list[str]]:
        return [["good4"] if word in ("good2", "plain0") else [] for word in words]

    text = "good2 plain0 plain1 plain2 plain3 x y z v w"
    found = word_substitution(BagOfWords(), [text], [1], candidates=candidates, similarity_fn=None)
    assert not found.success[0]
    assert found.texts == [text]
    assert found.queries[0] == 1 + 2 + 2


def test_similarity_is_one_where_nothing_changed_and_unknown_where_not_measured() -> None:
    texts = ["good1 b c d e", "good5 good5 good5 good5 good5"]
    found = word_substitution(BagOfWords(-0.5), texts, [1, 1], candidates=_upper, similarity_fn=None)
    assert found.success.tolist() == [True, False]
    assert np.isnan(found.similarity[0])
    assert found.similarity[1] == 1.0


@pytest.mark.parametrize("name", WORD_ATTACKS)
def test_odd_texts(name: str) -> None:
    own = {"candidates": _upper, "similarity_fn": None} if name == "word_substitution" else {}
    texts = [
        "",
        " \n",
        "good1",
        "🙂 👩\u200d👩\u200d👧 !!",
        "good1 \ud800 a broken surrogate here",
        "هذا فيلم رائع جدا good1",
        "זה good1 סרט טוב מאוד",
        " ".join(["good1"] + ["plain0"] * 400),
    ]
    labels = np.ones(len(texts), int)
    found = WORD_ATTACKS[name](BagOfWords(-0.5), texts, labels, max_queries=5000, **own)
    assert found.success.tolist() == [False, False, False, False, True, True, True, True]
    for text, result in zip(texts, found.texts, strict=True):
        assert segment(result).separators == segment(text).separators


def test_no_texts_at_all() -> None:
    for name, own in (("word_substitution", {"similarity_fn": None}), ("character_edits", {})):
        found = WORD_ATTACKS[name](BagOfWords(), [], [], **own)
        assert found.texts == []
        assert found.success.shape == found.queries.shape == found.similarity.shape == (0,)


def test_chinese_texts_by_characters() -> None:
    def predict(texts: list[str]) -> npt.NDArray[np.float64]:
        return np.array([[0.1, 0.9] if "未" in text else [0.9, 0.1] for text in texts])

    text = "未知的东西很多"
    found = character_edits(
        predict, [text], [1], edits=("zh_lookalike", "zh_symbol"), chinese="characters", max_changed=0.2
    )
    assert found.texts == ["末知的东西很多"]
    assert found.changed == [(0,)]


def _has_changed(original: str) -> Callable[[list[str]], npt.NDArray[np.float64]]:
    """A model that answers 1 to the very text alone, whatever else it is asked."""

    def predict(texts: list[str]) -> npt.NDArray[np.float64]:
        return np.array([[0.1, 0.9] if text == original else [0.9, 0.1] for text in texts])

    return predict


@pytest.mark.parametrize("installed", [True, False])
def test_chinese_words_are_edited_without_asking_for_it(
    installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed:
        monkeypatch.setattr(_chinese, "_is_installed", lambda module: False)
    text = "未知的东西很多"
    found = character_edits(_has_changed(text), [text], [1], max_changed=0.5)
    assert found.success[0]
    assert found.texts[0] != text
    assert not found.untouched[0]
    assert default_edits([text, "abc"])[:5] == default_edits(["abc"]) == CHARACTER_EDITS
    own = default_edits([text])[5:]
    assert set(own) >= {"zh_lookalike", "zh_symbol"}
    assert ("zh_homophone" in own) == installed


def test_other_words_are_edited_as_they_were_whatever_stands_beside_them() -> None:
    texts = ["some wonderful pictures and others", "未知的东西很多"]
    found = character_edits(_has_changed(texts[0]), texts, [1, 0], max_changed=0.5)
    alone = character_edits(_has_changed(texts[0]), texts[:1], [1], edits=CHARACTER_EDITS, max_changed=0.5)
    assert found.texts[0] == alone.texts[0] != texts[0]
    assert found.queries[0] == alone.queries[0]


def test_texts_that_could_not_be_attacked_are_told_from_those_that_withstood() -> None:
    # Too short for a fifth of its words; no letter to edit; withstands; wrong before.
    texts = ["good1 film", "1 2 3 4 5 6", "good5 good5 good5 film stars", "bad3 film"]
    found = character_edits(BagOfWords(), texts, [1, 1, 1, 1])
    assert found.untouched.tolist() == [True, True, False, False]
    assert found.success.tolist() == [False] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_changed": 1.5}, r"max_changed = 1\.5"),
        ({"min_similarity": 2.0}, r"min_similarity = 2\.0"),
        ({"max_queries": 0}, "max_queries = 0"),
        ({"max_seconds": 0.0}, r"max_seconds = 0\.0"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"edits": ["swop"]}, "did you mean 'swap'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        character_edits(BagOfWords(), ["a"], [0], **settings)  # type: ignore[arg-type]


def test_wrong_labels_and_answers_are_refused() -> None:
    with pytest.raises(ConfigError, match="the shape \\(1,\\)"):
        character_edits(BagOfWords(), ["a", "b"], [0])
    with pytest.raises(ConfigError, match="float64"):
        character_edits(BagOfWords(), ["a"], [0.0])
    with pytest.raises(ConfigError, match="2 is no class of the 2"):
        character_edits(BagOfWords(), ["a"], [2])
    with pytest.raises(ConfigError, match="put the single one into a list"):
        character_edits(BagOfWords(), "a", [0])
    with pytest.raises(ConfigError, match=r"predict_fn returned the shape \(1,\)"):
        character_edits(lambda texts: np.zeros(len(texts)), ["a"], [0])
    with pytest.raises(ConfigError, match="not finite"):
        character_edits(lambda texts: np.full((len(texts), 2), np.nan), ["a"], [0])
    with pytest.raises(ConfigError, match="similarity_fn returned the shape"):
        word_substitution(
            BagOfWords(), ["good1 b c d e"], [1], candidates=_upper, similarity_fn=lambda a, b: [1.0, 1.0]
        )
    with pytest.raises(ConfigError, match="similarity_fn returned a number that is not finite"):
        word_substitution(
            BagOfWords(), ["good1 b c d e"], [1], candidates=_upper, similarity_fn=lambda a, b: [np.nan]
        )
