"""The feature cache: computed once, never taken for another's, never half there."""

import json

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from tfapp.data import feature_cache
from tfapp.data.bucketing import training_batches
from tfapp.data.feature_cache import FeatureShape, StoredRows, cached_features
from tfapp.errors import OutputError

LENGTHS = np.array([3, 1, 4])
SPLITS = np.concatenate([[0], np.cumsum(LENGTHS)])


class Computer:
    """Computes features of three rows in two batches, and counts how often it is asked."""

    def __init__(self, *, pooled=True, offset=0.0):
        self.calls, self.pooled, self.offset = 0, pooled, offset

    def values(self):
        shape = (3, 2) if self.pooled else (8, 2)
        return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 8 + self.offset

    def __call__(self):
        self.calls += 1
        values = self.values()
        for rows in (np.array([1]), np.array([2, 0])):
            if self.pooled:
                yield rows, values[rows]
                continue
            padded = np.full((len(rows), LENGTHS[rows].max(), 2), np.nan, np.float32)
            for place, row in enumerate(rows):
                padded[place, : LENGTHS[row]] = values[SPLITS[row] : SPLITS[row + 1]]
            yield rows, padded


def cached(path, compute, key="key", bfloat16=False):
    shape = FeatureShape(3 if compute.pooled else 8, (2,), bfloat16)
    splits = None if compute.pooled else SPLITS
    return cached_features(path, key, shape, splits, compute, name="features")


def features_of(rows):
    gathered = rows.gather(tf.range(3))
    values = gathered["features"].numpy()
    return values[gathered["padding_mask"].numpy().astype(bool)] if "padding_mask" in gathered else values


@pytest.mark.parametrize("pooled", [True, False])
def test_features_are_computed_once(tmp_path, pooled):
    compute = Computer(pooled=pooled)
    first, hit = cached(tmp_path / "cache", compute)
    assert not hit
    np.testing.assert_array_equal(features_of(first), compute.values())
    second, hit = cached(tmp_path / "cache", compute)
    assert hit
    assert compute.calls == 1
    np.testing.assert_array_equal(features_of(second), compute.values())


def test_another_key_replaces_the_cache(tmp_path):
    cached(tmp_path / "cache", Computer())
    other = Computer(offset=100.0)
    rows, hit = cached(tmp_path / "cache", other, key="other")
    assert not hit
    np.testing.assert_array_equal(features_of(rows), other.values())
    assert [entry.name for entry in tmp_path.iterdir()] == ["cache"]


def test_another_shape_or_type_is_another_cache(tmp_path):
    cached(tmp_path / "cache", Computer())
    assert not cached(tmp_path / "cache", Computer(), bfloat16=True)[1]
    assert not cached(tmp_path / "cache", Computer(pooled=False), bfloat16=True)[1]


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("bfloat16", [True, False])
def test_large_features_are_read_from_disk_alike(tmp_path, monkeypatch, pooled, bfloat16):
    compute = Computer(pooled=pooled)
    held, _ = cached(tmp_path / "cache", compute, bfloat16=bfloat16)
    monkeypatch.setattr(feature_cache, "IN_MEMORY_MEGABYTES", 0.0)
    stored, hit = cached(tmp_path / "cache", compute, bfloat16=bfloat16)
    assert hit
    assert isinstance(stored, StoredRows)
    np.testing.assert_array_equal(stored.lengths, held.lengths)
    labels = np.arange(3, dtype=np.int32)
    expected, given = (
        training_batches(rows, labels, batch_size=2, seed=0).take(4) for rows in (held, stored)
    )
    assert given.element_spec[0]["features"].shape[-1] == 2
    for (inputs, truth), (others, same) in zip(expected, given, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, inputs, others)
        np.testing.assert_array_equal(truth, same)


def damage_truncated(path):
    file = path / "features.bin"
    file.write_bytes(file.read_bytes()[:-1])


def damage_no_meta(path):
    (path / "meta.json").unlink()


def damage_meta(path):
    (path / "meta.json").write_text("{", encoding="utf-8")


def damage_meta_type(path):
    (path / "meta.json").write_text("[]", encoding="utf-8")


def damage_dtype(path):
    meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    (path / "meta.json").write_text(json.dumps({**meta, "dtype": "no such type"}), encoding="utf-8")


@pytest.mark.parametrize(
    "damage", [damage_truncated, damage_no_meta, damage_meta, damage_meta_type, damage_dtype]
)
def test_a_damaged_cache_is_computed_again(tmp_path, damage):
    cached(tmp_path / "cache", Computer())
    damage(tmp_path / "cache")
    compute = Computer()
    rows, hit = cached(tmp_path / "cache", compute)
    assert not hit
    np.testing.assert_array_equal(features_of(rows), compute.values())


def test_a_stop_midway_leaves_nothing(tmp_path):
    def stopped():
        yield from Computer()()
        raise KeyboardInterrupt

    stopped.pooled = True
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "cache", stopped)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="cannot write the feature cache"):
        cached(tmp_path / "file" / "cache", Computer())


def test_a_full_disk_is_an_output_error_with_the_cure(tmp_path):
    resource = pytest.importorskip("resource")
    shape = FeatureShape(1000, (512,), bfloat16=False)

    def compute():
        yield np.arange(1000), np.ones((1000, 512), np.float32)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(OutputError, match=r"of 2 MB: .*; free some space, or lower feature_cache_megab"):
            cached_features(tmp_path / "cache", "key", shape, None, compute, name="features")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_bfloat16_takes_half_the_room(tmp_path):
    compute = Computer(pooled=False, offset=0.001)
    rows, _ = cached(tmp_path / "half", compute, bfloat16=True)
    cached(tmp_path / "whole", compute)
    sizes = {name: (tmp_path / name / "features.bin").stat().st_size for name in ("half", "whole")}
    assert sizes == {"half": 8 * 2 * 2, "whole": 8 * 2 * 4}
    rounded = compute.values().astype(ml_dtypes.bfloat16).astype(np.float32)
    assert (rounded != compute.values()).any()
    np.testing.assert_array_equal(features_of(rows), rounded)


def test_the_size_is_told_beforehand():
    assert FeatureShape(25_000, (384,), bfloat16=False).megabytes == 38.4
    assert FeatureShape(25_000, (384,), bfloat16=True).megabytes == 19.2
