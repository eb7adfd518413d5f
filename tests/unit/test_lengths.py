"""The report of lengths in tokens: percentiles, what is cut, and what is split."""

import numpy as np
import pytest

from tfapp.data.lengths import length_report

LENGTHS = np.arange(1, 101)


def test_percentiles_and_what_is_cut():
    report = length_report(LENGTHS, 90, long_texts="truncate", positions=512)
    assert (report.rows, report.p50, report.p95, report.p99, report.longest) == (100, 51, 96, 100, 100)
    assert report.texts_over == report.texts_cut == pytest.approx(0.10)
    assert report.tokens_cut == pytest.approx(55 / 5050)
    assert report.lines() == [
        "tokens     p50 51, p95 96, p99 100, longest 100; max_length 90",
        "cut        10.0% of the texts, 1.1% of all tokens; max_length = 100 would cut nothing, at more time "
        "and memory",
    ]


def test_the_cure_stays_within_the_backbones_positions():
    line = length_report(LENGTHS, 90, long_texts="truncate", positions=95).lines()[1]
    assert "max_length = 95 would cut less" in line
    line = length_report(LENGTHS, 95, long_texts="truncate", positions=95).lines()[1]
    assert line == "cut        5.0% of the texts, 0.3% of all tokens"


def test_texts_that_fit():
    report = length_report(LENGTHS, 100, long_texts="truncate", positions=512)
    assert report.lines()[1] == "cut        nothing: every text fits"


def test_windows_are_told():
    report = length_report(LENGTHS, 90, long_texts="windows", positions=512)
    assert report.lines()[1:] == ["windows    10.0% of the texts are split, their logits averaged"]


def test_what_stands_beyond_the_last_window_is_told():
    """Windows of 6 tokens hold 4 of the text, 3 of them new: 16 reach 49 tokens and 2 special ones."""
    report = length_report(LENGTHS, 6, long_texts="windows", positions=512)
    assert (report.kept, report.texts_cut) == (51, 0.49)
    assert report.tokens_cut == pytest.approx(sum(range(1, 50)) / 5050)
    assert report.lines()[1:] == [
        "windows    94.0% of the texts are split, their logits averaged",
        "cut        49.0% of the texts, 24.3% of all tokens, what stands beyond 51 tokens; max_length = 100 "
        "would cut nothing, at more time and memory",
    ]
