"""TextAttack's side of the word attacks: TextFooler's search on the first texts of SST-2's test set.

Runs in TextAttack's own environment (`peers.py`), with tfapp's sources on the path for its stop words, its
tagger and its table of synonyms. Prints one JSON line.

wordnet  TextAttack's own WordNet swap: synonyms of all parts of speech and in their base forms, filtered by
         its part-of-speech constraint, which asks tfapp's tagger (NLTK's model comes from a hub)
table    the synonyms that tfapp's attack tries
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
import tempfile
import time
import types
from importlib import metadata
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # tfapp's sources, behind this environment's own

# Modules that TextAttack imports for parts of it that are not used here: other attacks' transformations and
# constraints, data sets, loggers.
UNUSED = (
    *("OpenHowNet", "bert_score", "datasets", "editdistance", "flair", "flair.data", "flair.models", "jieba"),
    *(
        "Levenshtein",
        "langdetect",
        "language_tool_python",
        "lemminflect",
        "num2words",
        "pinyin",
        "word2number",
    ),
)


class _Unused(types.ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def without_unused() -> None:
    """Puts empty modules in the place of those that are not installed and not used."""
    for name in UNUSED:
        sys.modules[name] = _Unused(name)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])


def lay_out_nltk(folder: Path) -> None:
    """Makes NLTK's folder of data: WordNet from the packaged dictionary files, and the stop words.

    What the package lacks is written anew: the names of the lexicographers' files, which only label synsets,
    and the irregular forms, from the verbs and nouns that tfapp knows.
    """
    from tfapp.assets import ASSETS, fetch
    from tfapp.data.lexicon import STOP_WORDS, load_substitutions
    from tfapp.data.lexicon.wordnet import PARTS

    source = fetch(ASSETS["wordnet"]) / "wordnet" / "dict"
    target = folder / "corpora" / "wordnet"
    target.mkdir(parents=True)
    morphology = load_substitutions().morphology
    nouns = {form: [base] for form, base in morphology.irregular_nouns.items()}
    irregular = {"n": nouns, "v": morphology.verb_bases, "a": {}, "r": {}}
    for name, part in PARTS.items():
        (target / f"index.{name}").write_bytes((source / f"index.{name}").read_bytes())
        parts = [source / f"data.{name}{number}" for number in ("", "1", "2")]
        (target / f"data.{name}").write_bytes(b"\n".join(p.read_bytes() for p in parts if p.is_file()))
        lines = [f"{form} {' '.join(bases)}\n" for form, bases in sorted(irregular[part].items())]
        (target / f"{name}.exc").write_text("".join(lines))
    (target / "index.sense").touch()  # read to map the synsets of other languages' wordnets, and for no more
    (target / "lexnames").write_text("".join(f"{n:02d}\tfile{n}\t{1 + n // 26}\n" for n in range(45)))
    (folder / "corpora" / "stopwords").mkdir()
    (folder / "corpora" / "stopwords" / "english").write_text("\n".join(sorted(STOP_WORDS)) + "\n")
    os.environ["NLTK_DATA"] = str(folder)


def build(options: argparse.Namespace):
    """Builds the attack, and a function that readies it for a text."""
    import torch
    import transformers
    from textattack import Attack
    from textattack.constraints.grammaticality import PartOfSpeech
    from textattack.constraints.overlap import MaxWordsPerturbed
    from textattack.constraints.pre_transformation import RepeatModification, StopwordModification
    from textattack.constraints.semantics.sentence_encoders import SentenceEncoder
    from textattack.goal_functions import UntargetedClassification
    from textattack.models.wrappers import ModelWrapper
    from textattack.search_methods import GreedyWordSwapWIR
    from textattack.transformations import WordSwap

    from tfapp.data.lexicon import STOP_WORDS, load_substitutions

    torch.set_num_threads(options.threads)
    substitutions = load_substitutions()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(options.model).eval()
    encoder = transformers.AutoModel.from_pretrained(options.encoder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.encoder)
    limits = {"padding": True, "truncation": True, "return_tensors": "pt"}

    class Classifier(ModelWrapper):
        """TextAttack's own wrapper pads every text to the tokenizer's limit; this one does not."""

        def __init__(self) -> None:
            self.model = model

        def __call__(self, texts):
            with torch.inference_mode():
                return model(**tokenizer(texts, max_length=options.max_length, **limits)).logits

    class MiniLM(SentenceEncoder):
        """Means over tokens, as sentence-transformers computes them."""

        def encode(self, sentences):
            parts = []
            for start in range(0, len(sentences), options.batch_size):
                batch = tokenizer(sentences[start : start + options.batch_size], max_length=256, **limits)
                with torch.inference_mode():
                    hidden = encoder(**batch).last_hidden_state
                mask = batch["attention_mask"][..., None].to(hidden.dtype)
                parts.append((hidden * mask).sum(1) / mask.sum(1))
            return torch.cat(parts)

    class RoundedDown(MaxWordsPerturbed):
        """TextAttack rounds the number of words up; 20 % of nine words are then two."""

        def _check_constraint(self, transformed_text, reference_text):
            most = math.floor(self.max_percent * len(reference_text.words) + 1e-9)
            return len(transformed_text.all_words_diff(reference_text)) <= most

    class Tagged(PartOfSpeech):
        """The part of speech by tfapp's tagger, in TextAttack's window of words and with its cache."""

        def _get_pos(self, before_ctx, word, after_ctx):
            words = (*before_ctx, word, *after_ctx)
            if words not in self._pos_tag_cache:
                self._pos_tag_cache[words] = substitutions.tagger.tag(words)
            return self._pos_tag_cache[words][len(before_ctx)][:1]

    class Table(WordSwap):
        """The synonyms that tfapp finds for each word of the original text."""

        def __init__(self) -> None:
            super().__init__()
            self.rows: list[tuple[str, ...]] = []

        def _get_transformations(self, current_text, indices_to_modify):
            return [
                current_text.replace_word_at_index(index, word)
                for index in indices_to_modify
                for word in self.rows[index]
            ]

    constraints = [
        RepeatModification(),
        StopwordModification(stopwords=set(STOP_WORDS)),
        RoundedDown(max_percent=options.max_changed),
    ]
    if options.candidates == "wordnet":
        import nltk

        nltk.download = lambda *arguments, **settings: True
        from textattack.transformations import WordSwapWordNet

        transformation = WordSwapWordNet()
        constraints.append(Tagged(allow_verb_noun_swap=False))
    else:
        transformation = Table()
    constraints.append(MiniLM(threshold=options.min_similarity, metric="cosine"))
    goal = UntargetedClassification(Classifier(), model_batch_size=options.batch_size)
    attack = Attack(goal, constraints, transformation, GreedyWordSwapWIR(wir_method="delete"))

    def ready(text) -> None:
        if options.candidates == "table":
            transformation.rows = substitutions(text.words)

    return attack, ready


def run(options: argparse.Namespace) -> dict:
    from textattack.attack_results import SkippedAttackResult, SuccessfulAttackResult
    from textattack.shared import AttackedText

    attack, ready = build(options)
    with options.texts.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[: options.examples]
    warmup = AttackedText(rows[0]["text"])
    ready(warmup)
    attack.attack(warmup, options.classes.index(rows[0]["label"]))
    attack.clear_cache()
    outcomes = []
    started = time.perf_counter()
    for row in rows:
        text = AttackedText(row["text"])
        ready(text)
        result = attack.attack(text, options.classes.index(row["label"]))
        outcomes.append(
            {
                "clean_correct": not isinstance(result, SkippedAttackResult),
                "success": isinstance(result, SuccessfulAttackResult),
                "queries": result.num_queries,
                "text": result.perturbed_text(),
            }
        )
    seconds = time.perf_counter() - started
    names = ("textattack", "torch", "transformers", "nltk")
    used = {name: metadata.version(name) for name in names}
    return {"seconds": seconds, "outcomes": outcomes, "versions": used}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--candidates", choices=("wordnet", "table"), required=True)
    parser.add_argument("--model", type=Path, required=True, help="folder of the classifier under attack")
    parser.add_argument("--encoder", type=Path, required=True, help="folder of the sentence encoder")
    parser.add_argument("--texts", type=Path, required=True, help="CSV with the columns text and label")
    parser.add_argument("--classes", nargs="+", required=True, help="labels in the order of the logits")
    parser.add_argument("--examples", type=int, required=True)
    parser.add_argument("--max-changed", type=float, default=0.2)
    parser.add_argument("--min-similarity", type=float, default=0.8)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32, help="TextAttack's own default")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    without_unused()
    with tempfile.TemporaryDirectory() as folder:
        lay_out_nltk(Path(folder))
        print(json.dumps(run(options)))


if __name__ == "__main__":
    main()
