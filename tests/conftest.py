"""Fixtures that several tests share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

if TYPE_CHECKING:
    from tfapp.models import Classifier

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_WORDS = """
the a an and or not but of to in on at for with from by as is are was were be been it this that
these those he she they we you i his her their our your my who what when where why how all some many
few no yes more most good bad great awful fine poor best worst happy sad fast slow new old big small
long short high low early late film movie story actor plot scene music song team game goal match
player coach win lose score season league cup market bank price share stock trade profit loss money
sale firm company deal growth tax budget vote party leader law court police state city world country
government minister election phone computer software internet network mobile site data system
service user video news report say said make made take took give gave see saw know think one two
three four five six seven eight nine ten
"""
_PIECES = ["##s", "##ed", "##ing", "##er", "##ly", "##est", "##ness", "##al"]
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_CHARACTERS = list(_LETTERS + ".,!?'-") + [f"##{letter}" for letter in _LETTERS]


@pytest.fixture
def logger_as_before() -> Iterator[None]:
    """Takes away what the command line has added to the logger, which the process shares with other tests."""
    logger = logging.getLogger("tfapp")
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of the MiniLM-L6 weights; without them a test is skipped, or fails under CI."""
    from tfapp.assets import ASSETS, fetch
    from tfapp.errors import AssetError

    try:
        return fetch(ASSETS["minilm-l6"])
    except AssetError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the MiniLM-L6 weights cannot be fetched here: {error}")


@pytest.fixture(scope="session")
def tfapp_data() -> Path:
    """The folder of the larger real data sets, ``$TFAPP_DATA``; a test is skipped when it is unset."""
    folder = os.environ.get("TFAPP_DATA")
    if not folder:
        pytest.skip("TFAPP_DATA is not set: it names the folder of the larger real data sets")
    if not Path(folder).is_dir():
        pytest.fail(f"TFAPP_DATA={folder} is not a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_vocab() -> list[str]:
    """About 270 word pieces: special tokens, whole words, endings and single characters."""
    return list(dict.fromkeys(_SPECIAL + _WORDS.split() + _PIECES + _CHARACTERS))


@pytest.fixture
def tiny_classifier(tiny_vocab: list[str]) -> Classifier:
    """A random BERT of 2 blocks and width 32 with three classes, the same in every test."""
    from helpers import tiny_text_classifier

    return tiny_text_classifier(tiny_vocab, ("business", "sport", "tech"), width=32)
