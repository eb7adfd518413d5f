"""A tiny classifier of texts, a run that is stopped, and a reader of pages."""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Any

import keras
import keras_hub

from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.models import Classifier, build_text_classifier


def tiny_bert(vocabulary: list[str], *, width: int = 16, dropout: float = 0.1) -> keras.Model:
    """Makes a random BERT of 2 blocks."""
    return keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=2,
        num_heads=2,
        hidden_dim=width,
        intermediate_dim=2 * width,
        dropout=dropout,
        max_sequence_length=64,
    )


def tiny_text_classifier(
    vocabulary: list[str],
    classes: Iterable[str],
    *,
    width: int = 16,
    dropout: float = 0.1,
    tokenizer: WordPieceTokenizer | None = None,
    **options: Any,
) -> Classifier:
    """Makes a classifier on a tiny BERT, the same at every call."""
    keras.utils.set_random_seed(0)
    return build_text_classifier(
        tiny_bert(vocabulary, width=width, dropout=dropout),
        classes=tuple(classes),
        pooling="mean",
        tokenizer=tokenizer or WordPieceTokenizer(vocabulary, max_length=32),
        **options,
    )


class Stopped(Exception):  # noqa: N818 - a stop, not an error
    """Stands for a process that was killed."""


class StopAfter(keras.callbacks.Callback):
    """Stops a run after so many epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.left = epochs

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.left -= 1
        if not self.left:
            raise Stopped


class Page(HTMLParser):
    """Collects tags, their attributes and the text of a page, and refuses tags that do not close in order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data
