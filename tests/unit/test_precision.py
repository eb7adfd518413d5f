"""Which precision is chosen on which machine, and that it holds within the block and not after it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfapp.errors import ConfigError
from tfapp.training import precision as module
from tfapp.training.precision import choose_precision, computing_in, cpu_flags

TEXTS = ["the film was great", "the team won the cup and the coach said it was good"]


class Device:
    """Stands for one device that TensorFlow lists."""


@pytest.fixture
def machine(monkeypatch):
    """Makes TensorFlow and the kernel tell of another machine."""

    def make(*, flags=(), capabilities=(), tpu=False):
        config = tf.config
        monkeypatch.setattr(module, "cpu_flags", lambda: frozenset(flags))
        devices = [Device() for _ in capabilities]
        details = dict(zip(devices, capabilities, strict=True))
        monkeypatch.setattr(config, "list_physical_devices", lambda kind=None: devices)
        monkeypatch.setattr(
            config, "list_logical_devices", lambda kind=None: [Device()] if tpu and kind == "TPU" else []
        )
        monkeypatch.setattr(config.experimental, "get_device_details", details.__getitem__)

    return make


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ({"flags": ("avx2", "avx512f")}, "float32"),
        ({"flags": ("avx512_bf16",)}, "mixed_bfloat16"),
        ({"flags": ("amx_bf16",)}, "mixed_bfloat16"),
        ({}, "float32"),
        ({"flags": ("amx_bf16",), "capabilities": ({"compute_capability": (7, 5)},)}, "float32"),
        ({"capabilities": ({"compute_capability": (8, 0)},)}, "mixed_bfloat16"),
        ({"capabilities": ({"compute_capability": (9, 0)}, {"compute_capability": (7, 0)})}, "float32"),
        ({"capabilities": ({},)}, "float32"),
        ({"tpu": True}, "mixed_bfloat16"),
    ],
)
def test_the_device_decides(machine, description, expected):
    machine(**description)
    assert choose_precision() == expected
    assert choose_precision("auto") == expected


@pytest.mark.parametrize("requested", ["float32", "mixed_bfloat16"])
def test_a_request_is_followed_anywhere(machine, requested):
    machine(flags=("amx_bf16",) if requested == "float32" else ())
    assert choose_precision(requested) == requested


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="mixed_bfloat16"):
        choose_precision("mixed_float16")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 amx_bf16\nbugs: x\n", {"fpu", "avx2", "amx_bf16"}),
        ("processor : 0\nFeatures : fp asimd bf16\n", {"fp", "asimd", "bf16"}),
        ("", set()),
    ],
)
def test_flags_are_read_as_linux_names_them(monkeypatch, tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
    monkeypatch.setattr(module, "Path", lambda _: tmp_path / "cpuinfo")
    assert cpu_flags() == expected
    (tmp_path / "cpuinfo").unlink()
    assert cpu_flags() == frozenset()


def policies(model):
    return [layer.dtype_policy.name for layer in model._flatten_layers()]


def test_the_backbone_computes_in_bfloat16_within_the_block_only(tiny_classifier):
    model = tiny_classifier
    inputs = model.preprocessor(tf.constant(TEXTS))
    before, policies_before = model(inputs).numpy(), policies(model.backbone)
    with computing_in("mixed_bfloat16", model.backbone):
        hidden = model.backbone(inputs)["sequence_output"]
        within = model(inputs)
        assert hidden.dtype == tf.bfloat16
        # The numbers are those of bfloat16 and not float32 ones rounded at the end.
        assert within.dtype == tf.float32
        assert 1e-5 < np.abs(within - before).max() < 0.05
    assert {variable.dtype for variable in model.backbone.weights} == {"float32"}
    assert policies(model.backbone) == policies_before
    assert model.backbone(inputs)["sequence_output"].dtype == tf.float32
    np.testing.assert_array_equal(model(inputs), before)


def test_an_exception_restores_the_policies_too(tiny_classifier):
    backbone = tiny_classifier.backbone
    before = policies(backbone)

    def interrupted():
        with computing_in("mixed_bfloat16", backbone):
            assert "mixed_bfloat16" in policies(backbone)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert policies(backbone) == before


def test_a_backbone_built_in_bfloat16_can_compute_in_float32(tiny_vocab):
    import keras_hub

    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(tiny_vocab),
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=16,
        dtype="mixed_bfloat16",
    )
    inputs = {
        "token_ids": np.array([[2, 5, 3]]),
        "padding_mask": np.ones((1, 3), int),
        "segment_ids": np.zeros((1, 3), int),
    }
    before = policies(backbone)
    with computing_in("float32", backbone):
        assert backbone(inputs)["sequence_output"].dtype == tf.float32
    assert policies(backbone) == before
    assert backbone(inputs)["sequence_output"].dtype == tf.bfloat16
