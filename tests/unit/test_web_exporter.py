"""The page for browsers: its scripts do as the release does, and it is whole wherever it is copied to."""

import base64
import gzip
import hashlib
import html.parser
import json
import os
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import flatbuffers
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from node import SCRIPTS, run_script
from sentences import LINES, sentencepiece_model

from tfapp.assets import ASSETS, is_cached
from tfapp.data.characters import character_table
from tfapp.data.encoded import average_windows
from tfapp.data.image_decoding import ImageDecoder
from tfapp.data.tokenizers import SentencePieceTokenizer, WordPieceTokenizer
from tfapp.errors import AssetError, ConfigError
from tfapp.exporters import export_web_page
from tfapp.release.page_runtime import page_runtime

ENCODE = """
import { WordPiece } from "./wordpiece.js";
answer(given.map(({ vocabulary, settings, texts }) => {
  const tokenizer = new WordPiece(vocabulary, settings);
  return texts.map((text) => tokenizer.encode(text));
}));
"""
RESIZE = """
import { modelPixels } from "./pixels.js";
answer(given.map(({ height, width, data, settings, jpeg }) => {
  const image = { height, width, data: Buffer.from(data, "base64") };
  return Buffer.from(modelPixels(image, settings, jpeg)).toString("base64");
}));
"""
ODD = [
    "",
    " \t\r\n\u00a0\u3000\u200b",
    "\0 a\0b \x7f \x85 \ufffd \ufffe",
    "Straße ŒUVRE ﬁﬂ ŉ İstanbul ΣΊΣΥΦΟΣ ǅ ẞ",
    "e\u0301 E\u0301 a\u0327\u0301 q\u0307\u0323 \u0301alone",
    "각 가각힣 ㄱ 한국어",
    "中文，新闻。 𠀀 龜 ｆｕｌｌ　ｗｉｄｔｈ ㌀ ㍻",  # noqa: RUF001
    "## ##s a##s [UNK] [CLS] [SEP] don't ... --3.14",
    "a" * 100 + " " + "a" * 101 + " " + "é" * 50 + " " + "é" * 51 + " " + "ä" * 100,
    "soft\u00adhyphen zero\u200dwidth \ufeffbom \u2028line\u2029",
    "🙂👩‍👩‍👧 ⅷ ½ ² ℌ ﷺ",  # noqa: RUF001
    "غِيَاب हिन्दी ไทย ꙮ 𐐀 𝔄",  # noqa: RUF001
]


def odd_texts(vocabulary, *, count, seed):
    """Draws characters of all planes, whole words, and all that lies between."""
    draw = random.Random(seed)
    spans = [(0, 0x80), (0x20, 0x7F), (0x80, 0x250), (0x250, 0x3100), (0x3000, 0xD800), (0xE000, 0x10000)]
    spans += [(0x10000, 0x20000), (0x20000, 0x110000)]

    def piece():
        if draw.random() < 0.4:
            return draw.choice(vocabulary) + draw.choice(["", " ", "-"])
        return chr(draw.randrange(*draw.choice(spans)))

    return ["".join(piece() for _ in range(draw.randrange(40))) for _ in range(count)]


def rows_of(tokenizer, texts):
    encoded = tokenizer.encode(texts)
    rows = [[] for _ in texts]
    for row, owner in enumerate(range(len(texts)) if encoded.texts is None else encoded.texts):
        start, end = encoded.row_splits[row : row + 2]
        rows[owner].append(encoded.values[start:end].tolist())
    return rows


@pytest.mark.parametrize("lowercase", [True, False])
def test_word_pieces_are_those_of_tf_text_on_odd_strings(tiny_vocab, tmp_path, lowercase):
    vocabulary = [*tiny_vocab, "中", "新", "##新", "ss", "##ss", "é", "##é", "Film", "##'s", "##", "한", "##ᆨ"]
    # Every character of the planes that are in use, some at a time, each behind and before letters.
    points = [point for point in range(0x20000) if not 0xD800 <= point < 0xE000]
    every = ["".join(f"{chr(point)}s" for point in points[at : at + 80]) for at in range(0, len(points), 80)]
    texts = [*ODD, *odd_texts(vocabulary, count=800, seed=1), *every]
    tokenizer = WordPieceTokenizer(vocabulary, lowercase=lowercase, max_length=4096)
    given = [{"vocabulary": vocabulary, "settings": tokenizer.web_settings(), "texts": texts}]
    (found,) = run_script(tmp_path, ENCODE, given)
    assert found == rows_of(tokenizer, texts)


def test_long_texts_are_cut_or_split_as_the_tokenizer_does(tiny_vocab, tmp_path):
    texts = [*ODD, *(" ".join(["film"] * count) for count in (1, 9, 10, 11, 17, 18, 19, 100, 500))]
    tokenizers = [
        WordPieceTokenizer(tiny_vocab, max_length=length, long_texts=long_texts)
        for length, long_texts in ((12, "truncate"), (12, "windows"), (3, "windows"))
    ]
    given = [
        {"vocabulary": tiny_vocab, "settings": tokenizer.web_settings(), "texts": texts}
        for tokenizer in tokenizers
    ]
    for tokenizer, found in zip(tokenizers, run_script(tmp_path, ENCODE, given), strict=True):
        assert found == rows_of(tokenizer, texts)


ENCODE_BY_MODEL = """
import { SentencePiece } from "./sentencepiece.js";
answer(given.map(({ model, settings, texts }) => {
  const tokenizer = SentencePiece.read(new Uint8Array(Buffer.from(model, "base64")), settings);
  return texts.map((text) => tokenizer.encode(text));
}));
"""


def test_sentence_pieces_are_those_of_tf_text_on_odd_strings(tmp_path):
    model = sentencepiece_model()
    words = SentencePieceTokenizer(model).words
    points = [point for point in range(0x20000) if not 0xD800 <= point < 0xE000]
    every = ["".join(f"{chr(point)}s" for point in points[at : at + 80]) for at in range(0, len(points), 80)]
    texts = [*ODD, *LINES, *odd_texts(words, count=800, seed=2), *every, "\u2581 \u3000" * 9]
    tokenizers = [
        SentencePieceTokenizer(model, max_length=length, long_texts=long_texts)
        for length, long_texts in ((4096, "truncate"), (12, "truncate"), (12, "windows"))
    ]
    encoded = base64.b64encode(model).decode()
    given = [
        {"model": encoded, "settings": tokenizer.web_settings(), "texts": texts} for tokenizer in tokenizers
    ]
    for tokenizer, found in zip(tokenizers, run_script(tmp_path, ENCODE_BY_MODEL, given), strict=True):
        assert found == rows_of(tokenizer, texts)


def test_half_a_surrogate_pair_is_a_replacement_character(tiny_vocab, tmp_path):
    tokenizer = WordPieceTokenizer(tiny_vocab)
    given = [{"vocabulary": tiny_vocab, "settings": tokenizer.web_settings(), "texts": []}]
    script = ENCODE.replace("answer(", 'given[0].texts = ["a\\ud83d b", "film \\udc00"];\nanswer(')
    found = run_script(tmp_path, script, given)
    assert found == [rows_of(tokenizer, ["a\ufffd b", "film \ufffd"])]


def test_windows_are_averaged_as_a_release_averages_them(tmp_path):
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 4, (5, 3))
    powers = np.exp(logits)
    rows = (powers / powers.sum(axis=1, keepdims=True)).tolist()
    script = 'import { averaged } from "./tokens.js";\nanswer([averaged(given), averaged([[1, 0, 0]])]);'
    found, single = run_script(tmp_path, script, rows)
    mean = np.exp(average_windows(logits, np.zeros(5, np.int64))[0])
    np.testing.assert_allclose(found, mean / mean.sum(), atol=1e-12)
    assert single == [1, 0, 0]


CHECK = """
import { selfCheck } from "./check.js";
const { feature, prepared, answered, golden } = given;
// Ids of tokens, or letters that stand for pixels.
let asked = 0;
const classifier = {
  entry: { variant: "float32" },
  settings: { feature },
  prepare: async () => ({ tokens: prepared[asked], pixels: Buffer.from(prepared[asked]) }),
  answer: async () => answered[asked++],
};
const { p50, ...found } = await selfCheck(classifier, golden, async () => {});
answer(found);
"""
RIGHT = [[0.9, 0.1], [0.2, 0.8]]


def self_checked(folder, *, feature="text", prepared, answered=RIGHT):
    """Lets the page's check judge answers to two golden vectors."""
    (folder / "litert").mkdir()
    names = ("loadAndCompile", "loadLiteRt", "supportsFeature", "Tensor")
    stub = "".join(f"export const {name} = null;\n" for name in names)
    (folder / "litert" / "index.js").write_text(stub)
    rows = [{"text": "", "token_ids": [[2, 7, 3]]}, {"text": "", "token_ids": [[2, 8, 3], [2, 9, 3]]}]
    if feature != "text":
        rows = [
            {"image_bytes": "", "pixels_sha256": hashlib.sha256(content).hexdigest()}
            for content in (b"one", b"two")
        ]
    inputs = [{**row, "probabilities": right} for row, right in zip(rows, RIGHT, strict=True)]
    golden = {"inputs": inputs, "answers": {}, "tolerance": {"float32": 0.01}}
    given = {"feature": feature, "prepared": prepared, "answered": answered, "golden": golden}
    return run_script(folder, CHECK, given)


TOKENS = [[[2, 7, 3]], [[2, 8, 3], [2, 9, 3]]]


@pytest.mark.parametrize(
    ("prepared", "answered", "verdict"),
    [
        (TOKENS, RIGHT, "good"),
        (TOKENS, [[0.905, 0.095], [0.2, 0.8]], "good"),
        (TOKENS, [[0.8, 0.2], [0.2, 0.8]], ""),
        (TOKENS, [[0.4, 0.6], [0.2, 0.8]], "bad"),
        ([TOKENS[0], [[2, 1, 3]]], RIGHT, "bad"),
        ([[[2, 1, 3]], [[2, 1, 3]]], RIGHT, "bad"),
    ],
)
def test_the_check_of_texts_is_good_only_where_all_was_compared(tmp_path, prepared, answered, verdict):
    assert self_checked(tmp_path, prepared=prepared, answered=answered)["verdict"] == verdict


@pytest.mark.parametrize(
    ("prepared", "answered", "verdict"),
    [
        (["one", "two"], RIGHT, "good"),
        (["one", "twice"], [[0.9, 0.1], [0.3, 0.7]], "good"),
        (["one", "twice"], [[0.9, 0.1], [0.45, 0.55]], ""),
        (["once", "twice"], RIGHT, "bad"),
    ],
)
def test_the_check_of_pictures_judges_those_that_are_decoded_otherwise_too(
    tmp_path, prepared, answered, verdict
):
    found = self_checked(tmp_path, feature="image_bytes", prepared=prepared, answered=answered)
    assert found["verdict"] == verdict


def test_what_uses_the_model_waits_for_its_turn_even_after_a_failure(tmp_path):
    script = """
import { inTurn } from "./turns.js";
const said = [];
const work = (name, steps) => async () => {
  for (let step = 0; step < steps; step += 1) {
    said.push(name);
    await null;
  }
  if (name === "fails") throw new Error("said to the one who asked");
  return name;
};
const promised = [inTurn(work("first", 3)), inTurn(work("fails", 2)), inTurn(work("last", 1))];
const ended = await Promise.allSettled(promised);
answer([said, ended.map(({ value, reason }) => value ?? reason.message)]);
"""
    said, ended = run_script(tmp_path, script, None)
    assert said == ["first"] * 3 + ["fails"] * 2 + ["last"]
    assert ended == ["first", "said to the one who asked", "last"]


def test_a_picture_beyond_the_limit_is_refused_before_it_is_decoded(tmp_path):
    script = """
import { readPicture } from "./picture.js";
let decoded = 0;
globalThis.createImageBitmap = async () => {
  decoded += 1;
  throw new Error("damaged");
};
globalThis.Image = class {
  naturalWidth = 3;
  naturalHeight = 4;
  set src(address) {
    queueMicrotask(() => (address.startsWith("blob:") ? this.onload() : this.onerror()));
  }
};
const said = [];
for (const most of [11, 12]) {
  await readPicture(new Blob(["a picture"]), most).catch((error) => said.push(error.message));
}
answer([said, decoded]);
"""
    said, decoded = run_script(tmp_path, script, None)
    assert said == [
        "the picture has 3 x 4 pixels, more than 11",
        "this is no picture that the browser can decode",
    ]
    assert decoded == 1


def test_a_table_of_characters_tells_them_apart():
    table = character_table(lowercase=True)
    replaced = {first + at: text for first, *texts in table["replaced"] for at, text in enumerate(texts)}
    assert (replaced[ord("A")], replaced[ord("É")], replaced[ord("ß")], replaced[0]) == ("a", "e", "ss", " ")
    assert table["hangul"]
    assert not any(0xAC00 <= point <= 0xD7A3 for point in replaced)
    within = {
        name: {point for at in range(0, len(table[name]), 2) for point in range(*span(table[name], at))}
        for name in ("removed", "spaces", "separators")
    }
    assert within["removed"] >= {0x301, 0xAD, 0x200D}
    assert within["spaces"] >= {ord(" "), ord("\t"), 0x3000}
    assert within["separators"] >= {ord("#"), ord("$"), ord("中"), 0x3001}
    assert not within["separators"] & {ord("a"), ord("0"), ord("é")}
    plain = character_table(lowercase=False)
    assert (plain["removed"], plain["hangul"]) == ([], False)


def span(ranges, at):
    return ranges[at], ranges[at] + ranges[at + 1]


def test_pixels_are_those_of_the_decoder(tmp_path):
    generator = np.random.default_rng(0)
    given, wanted = [], []
    for number in range(24):
        height, width = (int(side) for side in generator.integers(1, 260, 2))
        pixels = generator.integers(0, 256, (height, width, 3)).astype(np.uint8)
        if number % 2:
            pixels = np.linspace(0, 255, pixels.size).reshape(pixels.shape).astype(np.uint8)
        aspect = ("stretch", "crop", "pad")[number % 3]
        decoder = ImageDecoder([(64, 64), (48, 80)][number // 3 % 2], aspect=aspect)
        wanted.append(decoder.decode(tf.io.encode_png(pixels)).numpy())
        given.append(image_of(pixels, decoder, jpeg=False))
    gaps = [
        np.abs(found.astype(int) - want.astype(int))
        for found, want in zip(resized(tmp_path, given), wanted, strict=True)
    ]
    # Where a value is halfway between two, the compiler's order of additions may decide.
    assert max(gap.max() for gap in gaps) <= 1
    assert sum(int(gap.sum()) for gap in gaps) <= 3


def test_jpeg_files_that_are_decoded_at_a_fraction_of_their_size_come_close(tmp_path):
    height, width = np.mgrid[:500, :700]
    waves = [np.sin(height / 17) + np.cos(width / 23), np.sin((height + width) / 31), np.cos(height / 11)]
    pixels = np.stack([120 + 40 * wave for wave in waves], axis=-1).astype(np.uint8)
    content = tf.io.encode_jpeg(pixels, quality=92)
    full = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    decoders = [ImageDecoder(size) for size in (400, 200, 100, 40)]
    found = resized(tmp_path, [image_of(full, decoder, jpeg=True) for decoder in decoders])
    gaps = [
        np.abs(pixels - decoder.decode(content).numpy().astype(int))
        for pixels, decoder in zip(found, decoders, strict=True)
    ]
    # At its own size a file is decoded alike; averages of pixels are not quite the decoder's at a half.
    assert [gap.max() <= 1 for gap in gaps] == [True, False, False, False]
    assert max(gap.max() for gap in gaps) <= 4
    assert max(gap.mean() for gap in gaps) < 0.5


def image_of(pixels, decoder, *, jpeg):
    data = base64.b64encode(pixels.tobytes()).decode()
    height, width = pixels.shape[:2]
    return {"height": height, "width": width, "data": data, "settings": decoder.web_settings(), "jpeg": jpeg}


def resized(folder, given):
    shapes = [(*image["settings"]["image_size"], 3) for image in given]
    found = run_script(folder, RESIZE, given)
    return [
        np.frombuffer(base64.b64decode(data), np.uint8).reshape(shape)
        for data, shape in zip(found, shapes, strict=True)
    ]


@pytest.fixture
def runtime(tmp_path):
    """Files that are named as the runtime's are."""
    folder = tmp_path / "litertjs"
    builds = ("wasm/litert_wasm_internal", "wasm/litert_wasm_compat_internal")
    for name in ("dist/index.js", *(f"{build}{end}" for build in builds for end in (".js", ".wasm"))):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode() * 100)
    return folder


@pytest.fixture
def pinned_runtime(runtime, monkeypatch):
    """These files, as if they were what is pinned."""
    asset = ASSETS["litertjs"]
    pinned = [(name, hashlib.sha256((runtime / name).read_bytes()).hexdigest()) for name, _ in asset.pinned]
    monkeypatch.setitem(ASSETS, "litertjs", replace(asset, pinned=tuple(pinned)))
    return runtime


def write_model(folder, variant, *, quantization=None):
    """Writes a .tflite file that says what its answer is like, and has nothing else."""
    answer = schema.TensorT()
    answer.type = schema.TensorType.FLOAT32
    if quantization:
        answer.type = schema.TensorType.UINT8
        answer.quantization = schema.QuantizationParametersT()
        answer.quantization.scale, answer.quantization.zeroPoint = [quantization[0]], [quantization[1]]
    graph = schema.SubGraphT()
    graph.tensors, graph.outputs = [schema.TensorT(), answer], [1]
    model = schema.ModelT()
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), b"TFL3")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"model-{variant}.tflite").write_bytes(bytes(builder.Output()))


def test_a_page_says_what_it_runs_and_brings_all_that_it_needs(tiny_classifier, pinned_runtime, tmp_path):
    edge = tmp_path / "release" / "edge"
    for variant in ("float32", "dynamic"):
        write_model(edge, variant)
    variants = ["keras", "float32", "dynamic"]
    page = export_web_page(
        tiny_classifier, edge.parent, name="tiny", runtime=pinned_runtime, variants=variants
    )
    assert page == edge / "web"
    settings = json.loads((page / "settings.json").read_text(encoding="utf-8"))
    assert (settings["name"], settings["feature"]) == ("tiny", "text")
    assert settings["classes"] == list(tiny_classifier.classes)
    assert [entry["variant"] for entry in settings["variants"]] == ["dynamic", "float32"]
    for entry in settings["variants"]:
        assert (edge / entry["path"]).stat().st_size == entry["bytes"]
        assert "step" not in entry
    names = {path.relative_to(page).as_posix() for path in page.rglob("*") if path.is_file()}
    own = {path.relative_to(SCRIPTS).as_posix() for path in SCRIPTS.rglob("*") if path.is_file()}
    builds = ("litert/litert_wasm_internal", "litert/litert_wasm_compat_internal")
    brought = {f"{build}{end}" for build in builds for end in (".js", ".wasm.gz")}
    assert names == own | brought | {"settings.json", "litert/index.js"}
    packed = (page / f"{builds[0]}.wasm.gz").read_bytes()
    assert gzip.decompress(packed) == (pinned_runtime / "wasm" / "litert_wasm_internal.wasm").read_bytes()
    assert packed[4:8] == bytes(4), "no time is in it: equal runtimes are equal files"


def test_integers_come_with_what_a_step_of_them_is_worth(pinned_runtime, tmp_path):
    write_model(tmp_path / "edge", "int8", quantization=(1 / 256, 3))
    model = SimpleNamespace(classes=("a", "b"), preprocessor=ImageDecoder((32, 48), aspect="pad"))
    page = export_web_page(model, tmp_path, name="grey", runtime=pinned_runtime, variants=["int8"])
    settings = json.loads((page / "settings.json").read_text(encoding="utf-8"))
    (entry,) = settings["variants"]
    assert (entry["step"], entry["zero"]) == (1 / 256, 3)
    assert settings["preprocessor"]["image_size"] == [32, 48]
    assert (settings["feature"], settings["preprocessor"]["aspect"]) == ("image_bytes", "pad")


@pytest.mark.parametrize("name", [name for name, _ in ASSETS["litertjs"].pinned])
@pytest.mark.parametrize("gone", [True, False])
def test_a_runtime_that_is_changed_after_it_was_found_is_not_copied(
    tiny_classifier, pinned_runtime, tmp_path, name, gone
):
    write_model(tmp_path / "edge", "float32")
    path = pinned_runtime / name
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.unlink()
    if not gone:
        path.write_bytes(b"!" + content[1:])
        os.utime(path, ns=times)
    words = "cannot be read" if gone else "has another sha256 than the pinned one"
    with pytest.raises(AssetError, match=rf"{name}: {words}.*; `tfapp presets fetch litertjs`"):
        export_web_page(tiny_classifier, tmp_path, name="tiny", runtime=pinned_runtime, variants=["float32"])


def test_a_page_without_a_variant_for_browsers_is_refused(tiny_classifier, runtime, tmp_path):
    with pytest.raises(ConfigError, match="dynamic, float16, float32"):
        export_web_page(
            tiny_classifier, tmp_path, name="tiny", runtime=runtime, variants=["saved_model", "text"]
        )


class Addresses(html.parser.HTMLParser):
    """Gathers what a page refers to."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "action")]


def test_the_page_names_no_other_place_and_its_policy_forbids_them():
    content = (SCRIPTS / "index.html").read_text(encoding="utf-8")
    parser = Addresses()
    parser.feed(content)
    for address in parser.found:
        assert (SCRIPTS / address).is_file(), address
    for path in SCRIPTS.glob("*.*"):
        places = re.findall(r"https?://[^\s\"'<>]+", path.read_text(encoding="utf-8"))
        assert set(places) <= {"http://www.w3.org/2000/svg"}, path.name
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', content)[1]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    # The only inline script is the import map, by its checksum.
    (script,) = re.findall(r"<script[^>]*>(.+?)</script>", content, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    for target in json.loads(script)["imports"].values():
        assert (SCRIPTS / target).is_file()


def test_the_runtime_comes_with_its_licence():
    notice = (SCRIPTS / "litert" / "NOTICE.txt").read_text(encoding="utf-8")
    asset = ASSETS["litertjs"]
    assert f"{asset.package} {asset.version}" in notice
    assert asset.licence == "Apache-2.0"
    root = Path(__file__).parents[2]
    assert (SCRIPTS / "litert" / "LICENSE.txt").read_bytes() == (root / "LICENSE").read_bytes()


def test_without_its_runtime_the_page_is_left_out_and_the_cure_is_said(
    tiny_classifier, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("TFAPP_CACHE", str(tmp_path / "cache"))
    with caplog.at_level("INFO", logger="tfapp"):
        assert page_runtime(None, tiny_classifier, ["dynamic"]) is None
    assert "`tfapp presets fetch litertjs` adds it" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", logger="tfapp"):
        assert page_runtime(False, tiny_classifier, ["dynamic"]) is None
        assert page_runtime(None, tiny_classifier, ["keras"]) is None
    assert caplog.text == ""


def test_a_runtime_that_was_changed_in_the_cache_is_left_out_without_asking_the_network(
    tiny_classifier, runtime, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("TFAPP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tfapp.assets.download", None)
    asset = ASSETS["litertjs"]
    folder = tmp_path / "cache" / "assets" / f"{asset.name}-{asset.version}"
    shutil.copytree(runtime, folder)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.*")]
    files = {
        name: {
            "bytes": (folder / name).stat().st_size,
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in names
    }
    (folder / "asset.json").write_text(json.dumps({"wheel_sha256": asset.sha256, "files": files}))
    assert is_cached(asset)
    with caplog.at_level("INFO", logger="tfapp"):
        assert page_runtime(None, tiny_classifier, ["dynamic"]) is None
    assert "index.js has another sha256" in caplog.text
    assert "edge/web, the page that runs the model in a browser, is left out" in caplog.text


def test_every_file_that_a_page_passes_on_is_pinned(runtime):
    brought = {path.relative_to(runtime).as_posix() for path in runtime.rglob("*.*")}
    assert set(dict(ASSETS["litertjs"].pinned)) == brought


def test_a_page_that_is_wanted_is_not_left_out_in_silence(tiny_classifier, tmp_path, monkeypatch):
    monkeypatch.setenv("TFAPP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="a browser can run none of keras, text; add one of dynamic"):
        page_runtime(True, tiny_classifier, ["keras", "text"])
    asset = ASSETS["litertjs"]
    tarballs = tmp_path / "cache" / "tarballs"
    tarballs.mkdir(parents=True)
    (tarballs / asset.file_name).write_bytes(b"something else")
    with pytest.raises(AssetError, match="is not 'litertjs'"):
        page_runtime(True, tiny_classifier, ["dynamic"])
