"""Cases of texts that every capability for texts must pass: one a language, small enough to train on."""

from __future__ import annotations

from dataclasses import dataclass

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class TextCase:
    """Labelled texts of one language and what is known of them.

    Attributes:
        name: The language's code.
        texts: The texts, all different.
        labels: A class name for each.
        pieces: WordPieces beside the special tokens; every text is made of them.
        split: The first text as the tokenizer must split it.
        encodings: Encodings in which files of such texts are met.
        near_copy: A text that says the same as the first one to a reader, with other signs or widths.
        edits: Edits that suit the language.
        attack_words: What to put in the place of words, or of characters in words.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    pieces: tuple[str, ...]
    split: tuple[str, ...]
    encodings: tuple[str, ...]
    near_copy: str
    edits: tuple[str, ...]
    attack_words: dict[str, str]

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in their order."""
        return tuple(sorted(set(self.labels)))

    @property
    def vocabulary(self) -> list[str]:
        """The WordPieces in the order of their ids."""
        return [*_SPECIAL, *self.pieces]


def _rows(
    subjects: tuple[str, ...], opinions: dict[str, tuple[str, ...]], form: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    rows = [
        (form.format(subject=subject, opinion=opinion), label)
        for subject in subjects
        for label, words in opinions.items()
        for opinion in words
    ]
    return tuple(text for text, _ in rows), tuple(label for _, label in rows)


_EN_SUBJECTS = ("hotel", "book", "phone", "milk", "room", "story", "screen", "waiter", "parcel", "lobby")
_EN_OPINIONS = {"good": ("great", "lovely", "cheap"), "bad": ("broken", "dirty", "boring")}
_EN_TEXTS, _EN_LABELS = _rows(_EN_SUBJECTS, _EN_OPINIONS, "the {subject} was really {opinion}, I think.")

_ZH_SUBJECTS = ("酒店", "图书", "手机", "牛奶", "房间", "故事", "屏幕", "服务员", "包裹", "大堂")
_ZH_OPINIONS = {"好评": ("很好", "漂亮", "便宜"), "差评": ("坏了", "太脏", "无聊")}
_ZH_TEXTS, _ZH_LABELS = _rows(_ZH_SUBJECTS, _ZH_OPINIONS, "这次的{subject}真是{opinion}，我觉得。")

TEXT_CASES: dict[str, TextCase] = {
    "en": TextCase(
        name="en",
        texts=_EN_TEXTS,
        labels=_EN_LABELS,
        pieces=(
            *("the", "was", "real", "##ly", "i", "think", "awful", ",", ".", "##s", "##x"),
            *_EN_SUBJECTS,
            *(word for words in _EN_OPINIONS.values() for word in words),
            *"abcdefghjklmnopqrstuvwxyz",
            *(f"##{letter}" for letter in "abcdefghijklmnopqrtuvwyz"),
        ),
        split=("the", "hotel", "was", "real", "##ly", "great", ",", "i", "think", "."),
        encodings=("utf-8", "utf-16", "latin-1"),
        near_copy="The hotel was really great; I think!",
        edits=("swap", "drop", "insert", "keyboard", "homoglyph"),
        attack_words={"great": "awful", "broken": "lovely"},
    ),
    "zh": TextCase(
        name="zh",
        texts=_ZH_TEXTS,
        labels=_ZH_LABELS,
        pieces=tuple(dict.fromkeys("".join(_ZH_TEXTS) + "糟糕不,!")),
        split=tuple("这次的酒店真是很好,我觉得。"),
        encodings=("utf-8", "utf-16", "gb18030", "gbk", "auto"),
        near_copy="这次的酒店真是很好!我觉得",
        edits=("zh_homophone", "zh_lookalike", "zh_script", "zh_swap", "zh_symbol"),
        attack_words={"好": "糟", "坏": "不"},
    ),
}
