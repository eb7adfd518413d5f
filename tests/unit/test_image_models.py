"""Image networks: packaged weights, normalisation in the graph, blocks, and where backbones come from."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from tfapp.assets import ASSETS, fetch
from tfapp.errors import AssetError, ConfigError, WeightsError
from tfapp.models import BACKBONES
from tfapp.models.image_backbones import on_pixels, pixel_input, randomise
from tfapp.models.image_blocks import image_blocks
from tfapp.models.image_networks import mobilenet_v2, resnet50
from tfapp.models.image_preprocessing import normalised, take_red_first
from tfapp.models.image_presets import APPLICATIONS, load_image_backbone
from tfapp.models.image_weights import assign_open_nsfw, assign_torch_tensors
from tfapp.models.onnx_file import read_onnx_convolutions
from tfapp.models.presets import load_backbone
from tfapp.models.torch_file import read_torch_tensors

SIZE = 32


def fetched(name: str) -> Path:
    try:
        return fetch(ASSETS[name])
    except AssetError as error:
        pytest.skip(f"{name} cannot be fetched here: {error}")


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def torch_tensors():
    return read_torch_tensors(fetched("mobilenet-v2") / "mobilenet_v2-b0353104.pth")


@pytest.fixture(scope="module")
def mobilenet(torch_tensors):
    return load_image_backbone("mobilenet_v2", image_size=224).backbone


def photographs():
    paths = sorted(fetched("foolbox-images").glob("imagenet_*.jpg"))
    images = [tf.image.resize(tf.io.decode_jpeg(path.read_bytes(), channels=3), (224, 224)) for path in paths]
    return np.stack(images), np.array([int(path.stem.rpartition("_")[2]) for path in paths])


def test_mobilenet_v2_knows_imagenet(mobilenet, torch_tensors):
    images, labels = photographs()
    features = mobilenet.predict(images, verbose=0).mean(axis=(1, 2))
    logits = features @ torch_tensors["classifier.1.weight"].T + torch_tensors["classifier.1.bias"]
    assert len(labels) == 20
    assert (logits.argmax(axis=1) == labels).sum() >= 17


def relu6_norm(hidden, tensors, name, *, relu=True):
    parts = (tensors[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    mean, variance, gamma, beta = parts
    hidden = (hidden - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    return hidden.clip(0, 6) if relu else hidden


def test_mobilenet_v2s_first_block_is_torchs(mobilenet, torch_tensors):
    """NumPy computes the strided stem and the first block from torch's own tensors."""
    image = np.random.default_rng(1).uniform(0, 255, (224, 224, 3))
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    padded = np.pad((image / 255 - mean) / deviation, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))[::2, ::2]
    hidden = np.einsum("xycij,ocij->xyo", windows, torch_tensors["features.0.0.weight"], optimize=True)
    hidden = relu6_norm(hidden, torch_tensors, "features.0.1")
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(hidden, ((1, 1), (1, 1), (0, 0))), (3, 3), axis=(0, 1)
    )
    depthwise = torch_tensors["features.1.conv.0.0.weight"][:, 0]
    hidden = relu6_norm(np.einsum("xycij,cij->xyc", windows, depthwise), torch_tensors, "features.1.conv.0.1")
    hidden = hidden @ torch_tensors["features.1.conv.1.weight"][:, :, 0, 0].T
    expected = relu6_norm(hidden, torch_tensors, "features.1.conv.2", relu=False)
    ours = keras.Model(mobilenet.inputs, image_blocks(mobilenet)[1].enters)(image[np.newaxis])[0]
    np.testing.assert_allclose(ours, expected, atol=2e-4 * np.abs(expected).max())


@pytest.fixture(scope="module")
def open_nsfw():
    return fetched("resnet50-nsfw") / "open_nsfw.onnx"


def nsfw_network(file, size, *, width):
    inputs = pixel_input((size, size))
    network = resnet50(inputs, normalised(inputs, "open_nsfw"), layout="caffe", width=width)
    assign_open_nsfw(network, file, widen=width == 1.0)
    return network


def test_widening_splits_every_weight_into_two_different_shares(open_nsfw):
    wide = nsfw_network(open_nsfw, SIZE, width=1.0)
    convolution, kernel = read_onnx_convolutions(open_nsfw)[15], wide.get_layer("conv3_block2_1_conv").kernel
    first, second = np.split(np.asarray(kernel), 2, axis=2)
    np.testing.assert_allclose(first + second, np.tile(convolution.kernel, 2), atol=1e-7)
    share = (first / (first + second))[:, :, np.abs(convolution.kernel[0, 0]).min(axis=1) > 1e-6]
    assert 0.34 < share.min() < 0.36
    assert 0.64 < share.max() < 0.66


@pytest.mark.slow
def test_the_widened_resnet50_computes_what_the_narrow_one_does(open_nsfw):
    wide, narrow = (nsfw_network(open_nsfw, 224, width=width) for width in (1.0, 0.5))
    images = photographs()[0][:4]
    expected = narrow.predict(images, verbose=0)
    assert expected.std() > 0.1
    np.testing.assert_allclose(
        wide.predict(images, verbose=0),
        np.concatenate([expected, expected], -1),
        atol=1e-5 * np.abs(expected).max(),
    )


@pytest.mark.slow
def test_the_narrow_resnet50_is_the_onnx_file(open_nsfw):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model = onnx.load(open_nsfw)
    pooled = next(node for node in model.graph.node if node.op_type == "ReduceMean").output[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(pooled, 1, None))
    images = photographs()[0]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (theirs,) = session.run([pooled], {"input_0": images[..., ::-1] - np.array([104, 117, 123], np.float32)})
    narrow = nsfw_network(open_nsfw, 224, width=0.5)
    ours = narrow.predict(images, verbose=0).mean(axis=(1, 2))
    np.testing.assert_allclose(ours, theirs.reshape(ours.shape), atol=1e-4)


@pytest.mark.slow
def test_packaged_networks_have_the_layers_of_keras_applications():
    size = pixel_input((SIZE, SIZE))
    for ours, theirs in (
        (resnet50(size, size, layout="caffe"), keras.applications.ResNet50),
        (mobilenet_v2(size, size), keras.applications.MobileNetV2),
    ):
        network = theirs(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
        assert [(v.path, v.shape) for v in ours.weights] == [(v.path, v.shape) for v in network.weights]


PREPROCESSING = {
    "resnet50": keras.applications.resnet.preprocess_input,
    "resnet50-v2": keras.applications.resnet_v2.preprocess_input,
    "mobilenet-v2-keras": keras.applications.mobilenet_v2.preprocess_input,
    "efficientnetv2-b0": keras.applications.efficientnet_v2.preprocess_input,
}


@pytest.mark.parametrize("name", sorted(APPLICATIONS))
def test_a_family_gets_what_its_preprocess_input_gives(name, pixels):
    """One convolution of the family's kind of input, on raw pixels and after ``preprocess_input``."""
    mode = APPLICATIONS[name].mode
    inputs = keras.Input((SIZE, SIZE, 3))
    network = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="conv1_conv")(inputs))
    prepared = PREPROCESSING[name](pixels.copy())
    if name == "efficientnetv2-b0":  # Its own preprocess_input does nothing: its graph does, as torch's does.
        np.testing.assert_array_equal(prepared, pixels)
        prepared = keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode="torch")
    expected = np.asarray(network(prepared))
    if mode == "caffe":
        take_red_first(network.layers[-1])
    ours = on_pixels(network, (SIZE, SIZE), mode=mode)(pixels)
    np.testing.assert_allclose(ours, expected, atol=1e-6 * np.abs(prepared).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(APPLICATIONS))
def test_a_network_of_keras_applications_computes_what_it_does_there(name, pixels, tmp_path):
    theirs = getattr(keras.applications, APPLICATIONS[name].build.__name__)(
        include_top=False, weights=None, input_shape=(SIZE, SIZE, 3)
    )
    file = tmp_path / "network.weights.h5"
    theirs.save_weights(file)
    loaded = load_image_backbone(name, image_size=SIZE, weights=file)
    assert loaded.preset == f"{name} with the weights of network.weights.h5"
    assert loaded.backbone.input.name == "pixels"
    prepared = PREPROCESSING[name](pixels.copy())
    np.testing.assert_allclose(loaded.backbone(pixels), theirs(prepared), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet50", 16),
        ("mobilenet-v2", 18),
        pytest.param("resnet50-v2", 16, marks=pytest.mark.slow),
        pytest.param("mobilenet-v2-keras", 18, marks=pytest.mark.slow),
        pytest.param("efficientnetv2-b0", 22, marks=pytest.mark.slow),
    ],
)
def test_blocks_partition_a_network(name, blocks):
    backbone = load_image_backbone(name, image_size=SIZE, weights=None).backbone
    found = image_blocks(backbone)
    assert len(found) == blocks
    layers = [id(layer) for block in found for layer in block.layers]
    assert len(set(layers)) == len(layers)
    order = {id(layer): number for number, layer in enumerate(backbone.layers)}
    numbers = [[order[id(layer)] for layer in block.layers] for block in found]
    assert all(max(below) < min(above) for below, above in pairwise(numbers))
    assert numbers[-1][-1] == len(order) - 1


def test_random_weights_are_the_seeds():
    inputs = keras.Input((SIZE, SIZE, 3))
    hidden = keras.layers.DepthwiseConv2D(3)(keras.layers.Conv2D(4, 3)(inputs))
    network = keras.Model(inputs, hidden)
    drawn = []
    for seed in (1, 1, 2):
        randomise(network, seed)
        drawn.append([layer.kernel.numpy() for layer in network.layers[1:]])
    for first, second, other in zip(*drawn, strict=True):
        np.testing.assert_array_equal(first, second)
        assert not np.array_equal(first, other)


def test_imagenet_weights_without_network_name_the_packaged_preset(monkeypatch):
    def no_network(*_, **__):
        raise Exception("URL fetch failure")

    monkeypatch.setattr("keras.src.applications.resnet.file_utils.get_file", no_network)
    with pytest.raises(WeightsError, match="'resnet50-nsfw'"):
        load_image_backbone("resnet50", image_size=SIZE)


def test_safetensors_with_torchs_names_load_into_torchs_layout(tmp_path, torch_tensors, pixels):
    file = tmp_path / "model.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in torch_tensors.items()}, file)
    loaded = load_image_backbone("mobilenet-v2", image_size=SIZE, weights=file).backbone
    packaged = load_image_backbone("mobilenet-v2", image_size=SIZE).backbone
    np.testing.assert_array_equal(loaded(pixels), packaged(pixels))
    with pytest.raises(WeightsError, match=r"no tensor 'conv1\.weight'"):
        load_image_backbone("resnet50", image_size=SIZE, weights=file)


def test_a_tensor_too_many_is_refused(torch_tensors):
    size = pixel_input((SIZE, SIZE))
    network = mobilenet_v2(size, size)
    with pytest.raises(WeightsError, match=r"no place for the tensor 'features.19.weight'"):
        assign_torch_tensors(network, {**torch_tensors, "features.19.weight": np.zeros(1)})


class Bomb:
    def __reduce__(self):
        return print, ("run",)


def test_a_pickle_that_wants_more_than_tensors_is_refused(tmp_path, capsys):
    file = tmp_path / "weights.pth"
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    file.write_bytes(b"".join(head) + pickle.dumps(OrderedDict(weight=Bomb()), 2))
    with pytest.raises(WeightsError, match="print"):
        read_torch_tensors(file)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-10], lambda data: data[:1000], lambda _: b"PK\x03\x04"]
)
def test_a_damaged_torch_file_is_refused(tmp_path, damage):
    data = (fetched("mobilenet-v2") / "mobilenet_v2-b0353104.pth").read_bytes()
    file = tmp_path / "weights.pth"
    file.write_bytes(damage(data))
    with pytest.raises(WeightsError, match="damaged"):
        read_torch_tensors(file)


def test_a_damaged_onnx_file_is_refused(tmp_path, open_nsfw):
    size = pixel_input((SIZE, SIZE))
    narrow = resnet50(size, size, layout="caffe", width=0.5)
    for damaged in (open_nsfw.read_bytes()[:1_000_000], b"", b"text"):
        file = tmp_path / "network.onnx"
        file.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"network\.onnx"):
            assign_open_nsfw(narrow, file, widen=False)


def tiny_network(size=(SIZE, SIZE, 3)):
    inputs = keras.Input(size)
    hidden = keras.layers.Rescaling(1 / 255)(inputs)
    for width in (4, 8):
        hidden = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(hidden)
        hidden = keras.layers.MaxPooling2D()(hidden)
    return inputs, hidden


def test_a_keras_file_is_a_whole_network_and_its_classifier_is_taken_off(tmp_path, pixels):
    inputs, hidden = tiny_network()
    pooled = keras.layers.GlobalAveragePooling2D()(hidden)
    outputs = keras.layers.Dense(5, activation="softmax")(keras.layers.Dropout(0.5)(pooled))
    keras.Model(inputs, outputs).save(tmp_path / "network.keras")
    loaded = load_image_backbone(str(tmp_path / "network.keras"))
    assert loaded.image_size == (SIZE, SIZE)
    np.testing.assert_allclose(loaded.backbone(pixels), keras.Model(inputs, pooled)(pixels), atol=1e-6)


def test_a_chain_has_a_block_for_each_kernel(pixels):
    backbone = on_pixels(keras.Model(*tiny_network((None, None, 3))), (SIZE, SIZE))
    (block,) = image_blocks(backbone)
    assert [type(layer).__name__ for layer in block.layers] == ["Conv2D", "MaxPooling2D"]
    upper = keras.Function([block.enters], backbone.outputs)
    lower = keras.Model(backbone.inputs, block.enters)
    np.testing.assert_allclose(upper([lower(pixels)])[0], backbone(pixels), atol=1e-6)


def test_a_keras_hub_folder_loads_with_its_normalisation(tmp_path, pixels):
    hub = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 16],
        stackwise_num_blocks=[1, 2],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )
    converter = keras_hub.layers.ResNetImageConverter(
        image_size=(SIZE, SIZE), scale=[0.1, 0.2, 0.3], offset=[-1.0, 0.0, 1.0]
    )
    hub.save_to_preset(str(tmp_path))
    converter.save_to_preset(str(tmp_path))
    loaded = load_image_backbone(str(tmp_path))
    assert loaded.image_size == (SIZE, SIZE)
    np.testing.assert_allclose(loaded.backbone(pixels), hub(converter(pixels)), atol=1e-4)
    assert len(image_blocks(loaded.backbone)) == 2


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet51", {}, "did you mean 'resnet50'"),
        ("missing.keras", {}, "no file or folder"),
        ("resnet50", {"weights": "missing.h5"}, "no such file"),
        ("resnet50", {"image_size": 16}, "at least 32"),
        ("resnet50", {"image_size": (32, 32, 3)}, "image_size"),
    ],
)
def test_what_cannot_be_loaded_is_refused(name, options, message):
    with pytest.raises((WeightsError, ConfigError), match=message):
        load_image_backbone(name, **options)


def test_weights_of_another_network_are_refused(tmp_path):
    file = tmp_path / "tiny.weights.h5"
    keras.Model(*tiny_network()).save_weights(file)
    with pytest.raises(WeightsError, match="cannot be loaded into resnet50"):
        load_image_backbone("resnet50", image_size=SIZE, weights=file)
    with pytest.raises(WeightsError, match="no whole network"):
        load_image_backbone(str(file))


def test_a_grey_network_is_refused():
    with pytest.raises(WeightsError, match="three colours"):
        on_pixels(keras.Model(*tiny_network((SIZE, SIZE, 1))), (SIZE, SIZE))


def test_an_image_preset_is_no_text_encoder():
    with pytest.raises(WeightsError, match="build_image_classifier"):
        load_backbone("resnet50-nsfw")
    assert "no ImageNet checkpoint" in BACKBONES["resnet50-nsfw"].description


def test_the_restricted_reader_reads_what_numpy_wrote():
    """A strided view of a storage, as torch writes a transposed tensor."""
    from tfapp.models.torch_file import _array, _Tensor

    storage = np.arange(6, dtype=np.float32)
    np.testing.assert_array_equal(_array(_Tensor("", 0, (3, 2), (1, 3)), storage), storage.reshape(2, 3).T)
    with pytest.raises(ValueError, match="beyond"):
        _array(_Tensor("", 1, (3, 2), (1, 3)), storage)
