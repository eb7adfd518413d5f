"""Batches from shards: the same in every run, complete, shuffled, resumable and shared."""

from __future__ import annotations

import random
import socket
import threading

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfapp.data.augment import TextAugmentation, make_augmentation
from tfapp.data.image_decoding import ImageDecoder
from tfapp.data.shards.service import batches_of, running_services
from tfapp.data.shards.sharding import write_shards
from tfapp.data.shards.streamed import load_sharded_data, naming_bad_shards
from tfapp.data.shards.streaming import Stream, streamed_batches
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import ConfigError, DataError

BATCH = 8


@pytest.fixture(scope="module")
def texts(tmp_path_factory, tiny_vocab):
    """About 1,000 texts of 1 to 30 words in three shards, and a stream of them."""
    folder = tmp_path_factory.mktemp("texts")
    draw = random.Random(0)
    words = [piece for piece in tiny_vocab if piece.isalpha()]
    rows = [(" ".join(draw.choices(words, k=draw.randint(1, 30))), f"c{n % 3}") for n in range(1500)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(folder / "rows.csv", index=False)
    write_shards(folder / "rows.csv", folder / "out", split="hash", shards=3)
    data = load_sharded_data(folder / "out")
    tokenizer = WordPieceTokenizer(tiny_vocab, max_length=24)
    return data, Stream(data.train.shards, tokenizer, ("token_ids", "padding_mask"), BATCH, 7)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Sixty images in a single shard, and a stream of them."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for number in range(60):
        path = folder / "in" / f"c{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(draw.integers(0, 256, (12, 10, 3), np.uint8)).numpy())
    write_shards(folder / "in", folder / "out", kind="image", split="hash", shards=1)
    data = load_sharded_data(folder / "out")
    return data, Stream(data.train.shards, ImageDecoder(8), ("pixels",), BATCH, 3)


def taken(batches: tf.data.Dataset, count: int):
    return [tf.nest.map_structure(lambda value: value.numpy(), each) for each in batches.take(count)]


def same(ones, others) -> bool:
    pairs = zip(tf.nest.flatten(ones), tf.nest.flatten(others), strict=True)
    return all(one.shape == other.shape and np.array_equal(one, other) for one, other in pairs)


def steps_of(data) -> int:
    return -(-len(data.train) // BATCH)


def row_keys(batches) -> list[bytes]:
    return sorted(
        np.trim_zeros(row).tobytes() + bytes([label])
        for inputs, labels in batches
        for row, label in zip(inputs["token_ids"], labels, strict=True)
    )


def test_an_epoch_has_every_row_once_as_the_tokenizer_encodes_it(texts):
    data, stream = texts
    steps = steps_of(data)
    batches = taken(streamed_batches(stream), steps)
    assert len(data.train.sample) == len(data.train)
    encoded = stream.preprocessor(tf.constant(data.train.sample.texts))
    whole = [({"token_ids": encoded["token_ids"].numpy()}, data.train.sample.labels)]
    assert row_keys(batches) == row_keys(whole)
    assert np.array_equal(np.bincount(np.concatenate([labels for _, labels in batches])), data.train.counts)
    assert sum(len(labels) == BATCH for _, labels in batches) >= steps - 1


def test_batches_are_those_of_the_seed_and_other_in_every_epoch(texts):
    data, stream = texts
    steps = steps_of(data)
    first = taken(streamed_batches(stream), 2 * steps)
    assert same(first, taken(streamed_batches(stream), 2 * steps))
    assert not same(first[:3], first[steps : steps + 3])
    assert row_keys(first[:steps]) == row_keys(first[steps:])
    other = Stream(stream.shards, stream.preprocessor, stream.inputs, BATCH, 8)
    assert not same(first[:3], taken(streamed_batches(other), 3))


def test_a_resumed_run_sees_the_batches_of_an_unbroken_one(texts):
    data, stream = texts
    steps = steps_of(data)
    whole = taken(streamed_batches(stream), 2 * steps)
    for epoch, step in ((0, 3), (0, 61), (1, 0), (1, 50)):
        rest = streamed_batches(stream, first_epoch=epoch, first_step=step)
        at = epoch * steps + step
        assert same(whole[at : at + 20], taken(rest, min(20, 2 * steps - at)))


def test_texts_of_similar_length_stand_together(texts):
    data, stream = texts
    batches = taken(streamed_batches(stream), steps_of(data))
    sizes = [inputs["padding_mask"].size for inputs, _ in batches]
    filled = [inputs["padding_mask"].sum() for inputs, _ in batches]
    assert sum(filled) / sum(sizes) > 0.9
    wide = Stream(stream.shards, stream.preprocessor, stream.inputs, BATCH, 7, pad_to=16)
    widths = {inputs["token_ids"].shape[1] for inputs, _ in taken(streamed_batches(wide), 40)}
    assert widths == {16, 24}


@pytest.mark.parametrize(("kind", "workers"), [("texts", 4), ("photos", 2)])
def test_the_parts_of_workers_are_the_batches_of_one(request, kind, workers):
    data, stream = request.getfixturevalue(kind)
    steps = steps_of(data)
    whole = taken(streamed_batches(stream), steps)
    shares = [(worker, workers) for worker in range(workers)]
    parts = [taken(streamed_batches(stream, share=share), steps) for share in shares]
    joined = [
        tf.nest.map_structure(lambda *own: np.concatenate(own), *each) for each in zip(*parts, strict=True)
    ]
    assert same(whole, joined)
    full = [number for number, (_, labels) in enumerate(whole) if len(labels) == BATCH]
    assert {len(part[number][1]) for part in parts for number in full} == {BATCH // workers}


def test_parts_may_be_uneven_and_there_are_no_others(texts):
    _, stream = texts
    uneven = [taken(streamed_batches(stream, share=(worker, 3)), 1) for worker in range(3)]
    assert [len(part[0][1]) for part in uneven] == [2, 3, 3]
    with pytest.raises(ConfigError, match="there is no part 3 of 3"):
        streamed_batches(stream, share=(3, 3))


def test_images_are_those_of_the_decoder_and_the_epoch_is_complete(photos):
    data, stream = photos
    batches = taken(streamed_batches(stream), steps_of(data))
    pixels = stream.preprocessor(tf.constant(list(data.train.sample.images)))["pixels"].numpy()
    seen = sorted(image.tobytes() for inputs, _ in batches for image in inputs["pixels"])
    assert seen == sorted(image.tobytes() for image in pixels)


def test_augmented_batches_and_weights_are_shared_and_resumed_too(photos, texts, tiny_vocab):
    _, stream = photos
    augment = make_augmentation({"horizontal_flip": True, "mixup": 0.4, "brightness": 0.2})
    weights = np.array([0.5, 2.0], np.float32)
    settings = (stream.shards, stream.preprocessor, stream.inputs, BATCH, 3)
    changed = Stream(*settings, class_weights=weights, augment=augment.for_batches(2))
    whole = taken(streamed_batches(changed), 12)
    parts = [taken(streamed_batches(changed, share=(worker, 2)), 12) for worker in range(2)]
    joined = [
        tf.nest.map_structure(lambda *own: np.concatenate(own), *each) for each in zip(*parts, strict=True)
    ]
    assert same(whole, joined)
    assert same(whole[4:], taken(streamed_batches(changed, first_step=4), 8))
    np.testing.assert_allclose(whole[0][2], whole[0][1] @ weights, rtol=1e-6)
    assert not same(whole[0][0], taken(streamed_batches(stream), 1)[0][0])
    _, words = texts
    edits = TextAugmentation(edits=("swap",), edit_share=0.5, edit_fraction=1.0)
    function = edits.for_batches(words.preprocessor, inputs=words.inputs)
    edited = Stream(
        words.shards, words.preprocessor, words.inputs, BATCH, 7, augment=function, augments_texts=True
    )
    ones = taken(streamed_batches(edited), 5)
    assert same(ones[2:], taken(streamed_batches(edited, first_step=2), 3))
    plain = taken(streamed_batches(words), 5)
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(ones, plain, strict=True))
    assert not same([each[0] for each in ones], [each[0] for each in plain])


def test_a_shard_that_is_damaged_later_is_named(texts, tmp_path):
    import shutil

    shutil.copytree(texts[0].train.shards.directory, tmp_path / "out")
    data = load_sharded_data(tmp_path / "out")
    path = tmp_path / "out" / "train-00001-of-00003.tfrecord"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    _, words = texts
    stream = Stream(data.train.shards, words.preprocessor, words.inputs, BATCH, 7)
    with (
        pytest.raises(DataError, match=r"train-00001-of-00003\.tfrecord is damaged"),
        naming_bad_shards(data.train.shards),
    ):
        taken(streamed_batches(stream), steps_of(data))


@pytest.mark.server
@pytest.mark.parametrize("kind", ["texts", "photos"])
def test_services_make_the_same_batches_in_the_same_order(request, kind, services):
    _, stream = request.getfixturevalue(kind)
    whole = taken(streamed_batches(stream, first_step=2), 30)
    for addresses in (services.addresses[:1], services.addresses):
        batches = batches_of(addresses, lambda stripe: streamed_batches(stream, first_step=2, stripe=stripe))
        assert same(whole, taken(batches, 30))


@pytest.fixture(scope="module")
def services():
    with running_services([0, 0]) as running:
        yield running


def test_a_service_that_does_not_answer_is_told_at_once(texts):
    _, stream = texts
    with pytest.raises(ConfigError, match="nothing answers there"):
        batches_of(["grpc://127.0.0.1:1"], lambda stripe: streamed_batches(stream, stripe=stripe))
    with pytest.raises(ConfigError, match="give an address such as"):
        batches_of(["127.0.0.1:5050"], lambda stripe: streamed_batches(stream, stripe=stripe))


def test_a_port_that_is_taken_or_named_twice_is_told_with_its_option():
    from tfapp.errors import OutputError

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=f"port {port} cannot be used .*: give another --worker-port"):
            running_services([0], worker_ports=[port]).__enter__()
    with pytest.raises(OutputError, match="port 5051 is named twice"):
        running_services([5050, 5051], worker_ports=[5051, 5052]).__enter__()


@pytest.mark.server
def test_a_worker_serves_batches_at_the_port_that_it_was_given(texts):
    _, stream = texts
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with running_services([0], worker_ports=[port]) as running:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        batches = batches_of(running.addresses, lambda stripe: streamed_batches(stream, stripe=stripe))
        assert len(taken(batches, 3)) == 3


@pytest.mark.server
def test_services_end_with_who_started_them_and_the_end_of_one_is_told():
    from tfapp.errors import OutputError

    with running_services([0]) as running:
        process = running.processes[0]
        threading.Timer(0.2, process.kill).start()
        with pytest.raises(OutputError, match=r"the service at grpc://127\.0\.0\.1:\d+ ended"):
            running.wait()
    assert process.poll() is not None
