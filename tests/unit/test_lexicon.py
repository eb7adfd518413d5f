"""WordNet, parts of speech, inflection and substitutions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tfapp.data.lexicon import STOP_WORDS, Morphology, Substitutions, Tagger, WordNet, load_substitutions
from tfapp.errors import AssetError, ConfigError, DataError

_TEXTS = [
    "the movie was surprisingly funny and the actors gave wonderful performances",
    "he keeps running faster than the biggest men in his best shoes",
    "a gob of drivel so sickly sweet that the eager consumers will retch it up",
    "it was a good film about bad people who hate and love their big houses",
]


@pytest.fixture(scope="module")
def substitutions() -> Substitutions:
    try:
        return load_substitutions()
    except AssetError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"WordNet cannot be fetched here: {error}")


@pytest.fixture(scope="module")
def wordnet(substitutions: Substitutions) -> WordNet:
    return substitutions.wordnet


@pytest.fixture(scope="module")
def tagger(substitutions: Substitutions) -> Tagger:
    return substitutions.tagger


@pytest.fixture(scope="module")
def morphology(substitutions: Substitutions) -> Morphology:
    return substitutions.morphology


def test_wordnet_is_read_as_it_was_published(wordnet: WordNet) -> None:
    # WordNet 3.0's manual page wnstats(7WN) states these numbers of words.
    counts = {part: len(index) for part, index in wordnet._index.items()}
    assert counts == {"n": 117_798, "v": 11_529, "a": 21_479, "r": 4_481}
    assert wordnet.synsets("dog", "n")[0].words == ("dog", "domestic dog", "Canis familiaris")
    assert len(wordnet.synsets("dog", "n")) == 7
    assert wordnet.synsets("zucchini", "n")[0].words  # in the nouns' second file
    assert ("film", "v") in wordnet
    assert ("filmic", "n") not in wordnet
    assert wordnet.synsets("zzz", "n") == ()


def test_every_meaning_in_the_index_is_in_the_data(wordnet: WordNet) -> None:
    lemmas = sorted(wordnet._index["n"])[::500] + sorted(wordnet._index["a"])[::100]
    for part in ("n", "a"):
        for lemma in lemmas:
            for synset in wordnet.synsets(lemma, part):
                assert lemma in {word.lower().replace(" ", "_") for word in synset.words}


def test_antonyms_are_found_directly_and_through_similar_adjectives(wordnet: WordNet) -> None:
    assert {"bad", "evil"} <= wordnet.antonyms("good", "a")
    assert wordnet.antonyms("love", "v") == {"hate", "detest"}
    assert "large" in wordnet.antonyms("tiny", "a")
    assert wordnet.antonyms("table", "n") == frozenset()


def test_a_damaged_or_absent_wordnet_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.noun cannot be read"):
        WordNet(tmp_path)
    for name in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"index.{name}").write_text("dog n 1 0 1 0 00000000\n")
        (tmp_path / f"data.{name}").write_text("00000000 03 n zz dog\n")
    with pytest.raises(DataError, match="damaged"):
        WordNet(tmp_path).synsets("dog", "n")


def test_exceptions_are_read_where_the_folder_has_them(tmp_path: Path) -> None:
    for name in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"index.{name}").write_text("")
        (tmp_path / f"data.{name}").write_text("")
    (tmp_path / "noun.exc").write_text("aides-de-camp aide-de-camp\noctopi octopus octopod\n")
    found = WordNet(tmp_path).exceptions
    assert found["n"] == {"aides-de-camp": ("aide-de-camp",), "octopi": ("octopus", "octopod")}
    assert found["v"] == {}


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("they want to film the dog", {"film": "VB", "dog": "NN"}),
        ("the film was dull", {"film": "NN", "dull": "JJ"}),
        ("you can watch it", {"watch": "VB"}),
        ("his watch stopped suddenly", {"watch": "NN", "stopped": "VBD", "suddenly": "RB"}),
        ("it has moved me", {"moved": "VBN"}),
        ("a glorpful thing", {"glorpful": "JJ"}),
        ("he said Zorblax came", {"Zorblax": "NNP"}),
    ],
)
def test_parts_of_speech_by_neighbours(tagger: Tagger, text: str, tags: dict[str, str]) -> None:
    found = dict(zip(text.split(), tagger.tag(text.split()), strict=True))
    assert {word: found[word] for word in tags} == tags


@pytest.mark.parametrize(
    ("word", "tag", "base"),
    [
        ("movies", "NNS", "movie"),
        ("women", "NNS", "woman"),
        ("knives", "NNS", "knife"),
        ("cities", "NNS", "city"),
        ("buses", "NNS", "bus"),
        ("masses", "NNS", "mass"),
        ("heroes", "NNS", "hero"),
        ("went", "VBD", "go"),
        ("running", "VBG", "run"),
        ("making", "VBG", "make"),
        ("paid", "VBD", "pay"),
        ("biggest", "JJS", "big"),
        ("happier", "JJR", "happy"),
        ("nicer", "JJR", "nice"),
    ],
)
def test_inflected_words_have_base_forms_and_back(
    morphology: Morphology, word: str, tag: str, base: str
) -> None:
    assert morphology.base(word, tag) == base
    assert morphology.inflect(base, tag) == word


def test_forms_that_are_not_in_use_are_not_made(morphology: Morphology) -> None:
    assert morphology.inflect("beautiful", "JJR") is None
    assert morphology.inflect("human", "NNS") == "humans"
    assert morphology.inflect("xyzzy", "VBD") is None
    assert morphology.base("blorps", "NNS") is None


def test_candidates_are_synonyms_in_the_same_form_and_never_antonyms(substitutions: Substitutions) -> None:
    checked = 0
    for text in _TEXTS:
        words = text.split()
        tags = substitutions.tagger.tag(words)
        for word, tag, candidates in zip(words, tags, substitutions(words), strict=True):
            if word in STOP_WORDS:
                assert candidates == ()
            for candidate in candidates:
                base = substitutions.morphology.base(word, tag)
                part = {"N": "n", "V": "v", "J": "a", "R": "r"}[tag[0]]
                assert base is not None
                assert candidate != word
                assert candidate.isalpha()
                assert candidate not in STOP_WORDS
                inflect, wordnet = substitutions.morphology.inflect, substitutions.wordnet
                synonyms = {other for synset in wordnet.synsets(base, part) for other in synset.words}
                assert candidate in {inflect(other, tag) for other in synonyms}
                assert candidate not in {inflect(other, tag) for other in wordnet.antonyms(base, part)}
                checked += 1
    assert checked > 200


def test_candidates_take_the_words_case(substitutions: Substitutions) -> None:
    lower, title, upper = (substitutions([word])[0] for word in ("funny", "Funny", "FUNNY"))
    assert lower[:2] == ("amusing", "comic")
    assert title == tuple(word.capitalize() for word in lower)
    assert upper == tuple(word.upper() for word in lower)


def test_the_halves_share_nothing_and_together_are_everything(substitutions: Substitutions) -> None:
    first, second = load_substitutions(half="first"), load_substitutions(half="second")
    pairs = {"all": set(), "first": set(), "second": set()}
    for text in _TEXTS:
        words = text.split()
        for name, table in (("all", substitutions), ("first", first), ("second", second)):
            pairs[name] |= {
                (w, c) for w, candidates in zip(words, table(words), strict=True) for c in candidates
            }
    assert not pairs["first"] & pairs["second"]
    assert pairs["first"] | pairs["second"] == pairs["all"]
    assert 0.35 < len(pairs["first"]) / len(pairs["all"]) < 0.65


def test_a_pair_is_in_the_same_half_both_ways() -> None:
    first = load_substitutions(half="first")
    assert ("film" in first(["movie"])[0]) == ("movie" in first(["film"])[0])
    assert ("comic" in first(["funny"])[0]) == ("funny" in first(["comic"])[0])


def test_an_attack_with_one_half_uses_nothing_of_the_other() -> None:
    from tfapp.attacks.words import word_substitution

    texts = [f"{text} and that is what matters" for text in _TEXTS]
    first, second = load_substitutions(half="first"), load_substitutions(half="second")

    def predict(asked: list[str]) -> np.ndarray:
        """The right class has 0.6 at first and less with each word that is gone; one alone does not fool."""
        shares = [
            max(len(set(t.split()) & set(o.split())) / len(set(o.split())) for o in texts) for t in asked
        ]
        right = np.array(shares) - 0.4
        return np.stack([right, 1 - right], axis=1)

    found = word_substitution(
        predict, texts, [0] * len(texts), candidates=second, similarity_fn=None, max_changed=1.0
    )
    assert found.success.all()
    for text, result, changed in zip(texts, found.texts, found.changed, strict=True):
        words, after = text.split(), result.split()
        assert len(changed) > 1
        for at in changed:
            assert after[at] in second(words)[at]
            assert after[at] not in first(words)[at]


def test_wrong_settings_are_refused(substitutions: Substitutions) -> None:
    with pytest.raises(ConfigError, match="half = 'third'"):
        load_substitutions(half="third")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="limit = 0"):
        load_substitutions(limit=0)
