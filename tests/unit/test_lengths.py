"""The report of lengths in tokens: percentiles, what is cut, and what is split."""

import numpy as np
import pytest

from tfapp.data.lengths import length_report

LENGTHS = np.arange(1, 101)


def test_percentiles_and_what_is_cut():
    report = length_report(LENGTHS, 90, long_texts="truncate", positions=512)
    assert (report.rows, report.p50, report.p95, report.p99, report.longest) == (100, 51, 96, 100, 100)
    assert report.texts_over == pytest.approx(0.10)
    assert report.tokens_over == pytest.approx(55 / 5050)
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
    assert report.lines()[1] == "windows    10.0% of the texts are split, their logits averaged"
