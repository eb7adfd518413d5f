"""Metadata and files inside .tflite files, read back with flatbuffers and zipfile."""

import io
import zipfile

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tfapp import __version__
from tfapp.data.tokenizers import WordPieceTokenizer
from tfapp.errors import WeightsError
from tfapp.exporters import export_tflite, unpack
from tfapp.exporters._metadata import model_metadata, model_version
from tfapp.exporters._metadata_schema import read_metadata, write_metadata
from tfapp.exporters._packing import input_names, pack

BERT = ["segment_ids", "token_ids", "padding_mask"]
FILES = {"labels.txt": b"business\nsport\ntech\n", "vocab.txt": b"[PAD]\n[UNK]\n"}


@pytest.fixture(scope="module")
def exported(tiny_vocab, tmp_path_factory):
    """A tiny classifier and its dynamic file."""
    from helpers import tiny_text_classifier

    model = tiny_text_classifier(tiny_vocab, ("business", "sport", "tech"))
    folder = tmp_path_factory.mktemp("packed")
    options = {"variant": "dynamic", "name": "news", "licence": "Apache-2.0."}
    return model, export_tflite(model, folder, **options)


def converted(content):
    """The file as the converter made it: what follows the head, without the files."""
    model = schema.Model.GetRootAs(content, 0)
    model = schema.ModelT.InitFromObj(model)
    model.metadata = [entry for entry in model.metadata if entry.name != b"TFLITE_METADATA"]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tables(content):
    """Every table of a model as plain values, without the metadata that were added."""

    def plain(value):
        if isinstance(value, np.ndarray):
            return value.tobytes()
        if isinstance(value, list):
            return [plain(item) for item in value]
        return (
            {key: plain(item) for key, item in vars(value).items()} if hasattr(value, "__dict__") else value
        )

    model = plain(schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0)))
    model["metadata"] = [entry for entry in model["metadata"] if entry["name"] != b"TFLITE_METADATA"]
    return model


def test_what_is_written_reads_back_as_it_was():
    given = {
        "name": "Wetter, été",
        "subgraph_metadata": [
            {
                "input_tensor_metadata": [
                    {
                        "name": "image",
                        "content": {
                            "content_properties": {
                                "ImageProperties": {
                                    "color_space": "RGB",
                                    "default_size": {"width": 57, "height": 40},
                                }
                            }
                        },
                        "process_units": [
                            {"options": {"NormalizationOptions": {"mean": [0.5], "std": [2.0]}}}
                        ],
                        "stats": {"max": [255.0], "min": [0.0]},
                    },
                    {"content": {"content_properties": {"FeatureProperties": {}}}},
                ],
                "associated_files": [{"name": "a", "type": "VOCABULARY"}, {"name": "b"}],
                "input_process_units": [
                    {"options": {"BertTokenizerOptions": {"vocab_file": [{"name": "v"}]}}}
                ],
            }
        ],
        "min_parser_version": "1.1.0",
    }
    content = write_metadata(given)
    assert content[4:8] == b"M001"
    assert read_metadata(content) == given
    assert write_metadata(read_metadata(content)) == content


@pytest.mark.parametrize(
    "damage", [lambda c: c[:40], lambda c: c[:4] + b"M002" + c[8:], lambda c: b"\xff" * 80]
)
def test_damaged_metadata_are_a_value_error(damage):
    content = write_metadata({"name": "news", "license": "Apache-2.0", "version": "1"})
    with pytest.raises(ValueError, match="metadata"):
        read_metadata(damage(content))


def test_the_file_says_what_it_is(exported):
    model, path = exported
    packed = unpack(path.read_bytes())
    found = packed.metadata
    assert found["name"] == "news"
    assert found["license"] == "Apache-2.0."
    assert found["author"] == f"tfapp {__version__}"
    assert found["version"] == model_version(model)
    assert found["min_parser_version"] == "1.1.0"
    (subgraph,) = found["subgraph_metadata"]
    (output,) = subgraph["output_tensor_metadata"]
    assert output["name"] == "probabilities"
    assert output["associated_files"][0]["type"] == "TENSOR_AXIS_LABELS"
    assert packed.labels_name == "labels.txt"
    assert packed.vocabulary_name == "vocab.txt"


def test_inputs_are_described_in_the_order_of_the_tensors(exported):
    content = exported[1].read_bytes()
    names = {"token_ids": "ids", "padding_mask": "mask", "segment_ids": "segment_ids"}
    (subgraph,) = unpack(content).metadata["subgraph_metadata"]
    found = [tensor["name"] for tensor in subgraph["input_tensor_metadata"]]
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    tensors = [graph.Tensors(graph.Inputs(number)).Name().decode() for number in range(graph.InputsLength())]
    assert [f"serving_default_{name}:0" for name in input_names(content)] == tensors
    assert [names[name] for name in input_names(content)] == found


def test_the_files_inside_are_those_beside(exported):
    path = exported[1]
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["labels.txt", "vocab.txt"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        for name in archive.namelist():
            assert archive.read(name) == (path.parent / name).read_bytes()


def test_the_model_itself_is_byte_for_byte_what_was_converted(exported):
    plain = converted(exported[1].read_bytes())
    packed = pack(plain, {"name": "news"}, FILES)
    start = packed.index(plain)
    assert start % 64 == 0
    assert tables(packed)["buffers"][-1]["data"][4:8] == b"M001"
    before, after = tables(plain), tables(packed)
    after["buffers"].pop()
    assert before == after


def test_the_same_model_gives_the_same_bytes(exported, tmp_path):
    model, path = exported
    again = export_tflite(model, tmp_path, variant="dynamic", name="news", licence="Apache-2.0.")
    assert again.read_bytes() == path.read_bytes()


def test_the_runtime_answers_as_without_metadata(exported, tmp_path):
    path = exported[1]
    (tmp_path / "plain.tflite").write_bytes(converted(path.read_bytes()))
    tensors, _ = exported[0].preprocessor.fixed(["good film", "share price"])
    answers = []
    for file in (path, tmp_path / "plain.tflite"):
        run = Interpreter(model_path=str(file)).get_signature_runner("serving_default")
        rows = [{name: value[row : row + 1] for name, value in tensors.items()} for row in range(2)]
        answers.append(np.concatenate([run(**row)["probabilities"] for row in rows]))
    np.testing.assert_array_equal(*answers)


def test_another_model_has_another_version(exported):
    model = exported[0]
    first = model_version(model)
    model.temperature = 2.0
    second = model_version(model)
    model.temperature = 1.0
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([kernel, bias + 1])
    third = model_version(model)
    model.layers[-1].set_weights([kernel, bias])
    assert model_version(model) == first
    assert len({first, second, third}) == 3


@pytest.mark.parametrize(
    ("lowercase", "more", "offered"), [(True, [], True), (False, [], False), (True, ["odd\r"], False)]
)
def test_a_tokenizer_is_named_only_where_mediapipe_splits_alike(
    tiny_classifier, tiny_vocab, lowercase, more, offered
):
    tokenizer = WordPieceTokenizer([*tiny_vocab, *more], lowercase=lowercase)
    tiny_classifier._parts.preprocessor = tokenizer
    files = {"labels.txt": FILES["labels.txt"], **tokenizer.asset_files()}
    found = model_metadata(tiny_classifier, BERT, files)
    (subgraph,) = found["subgraph_metadata"]
    assert ("input_process_units" in subgraph) == offered
    assert found["min_parser_version"] == ("1.1.0" if offered else "1.0.1")
    assert unpack(pack(minimal(), found, files)).vocabulary_name == "vocab.txt"


def test_what_is_not_known_is_left_out(tiny_classifier):
    found = model_metadata(tiny_classifier, ["text"], {"labels.txt": FILES["labels.txt"]})
    assert not {"name", "license"} & set(found)
    assert found["min_parser_version"] == "1.0.0"


def minimal(offset=0):
    """The smallest file that counts as a model, with one buffer that may lie outside of it."""
    buffer = schema.BufferT()
    buffer.offset, buffer.size = offset, 8
    entry = schema.MetadataT()
    entry.name, entry.buffer = "min_runtime_version", 0
    model = schema.ModelT()
    model.version, model.buffers, model.metadata = 3, [buffer], [entry]
    builder = flatbuffers.Builder(64)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_weights_outside_of_the_flatbuffer_are_refused():
    with pytest.raises(WeightsError, match="too large"):
        pack(minimal(offset=4096), {"name": "news"}, FILES)


def cut(content):
    return content[:-10]


def renamed(content):
    return content.replace(b"TFLITE_METADATA", b"TFLITE_METADATE")


def compressed(content):
    stream = io.BytesIO(without_archive(content))
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", FILES["labels.txt"])
    return stream.getvalue()


def without_archive(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        first = archive.infolist()[0].header_offset
    return content[:first]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "cannot be read"),
        (renamed, "no metadata"),
        (without_archive, "cannot be read"),
        (compressed, "compressed"),
        (lambda content: b"", r"no \.tflite file"),
        (lambda content: content[:100], r"no \.tflite file|cannot be read"),
    ],
)
def test_what_cannot_be_unpacked_is_a_value_error(damage, message):
    with pytest.raises(ValueError, match=message):
        unpack(damage(pack(minimal(), {"name": "news"}, FILES)))
