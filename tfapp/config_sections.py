"""The sections of a workflow file that say how a model is built, trained, measured and shipped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tfapp.config_rows import RowsSection, Section
from tfapp.config_values import (
    Fraction,
    ImageSide,
    NotNegative,
    PathText,
    Positive,
    check_ascending,
    check_trained_part,
)

PRETRAINED = "pretrained"
"""The ``weights`` of a backbone that come with its name."""

WORD_ATTACKS = ("word_substitution", "character_edits")
"""Attacks on texts."""


class ModelSection(Section):
    """``[model]``: the pretrained backbone and the head on it.

    Without ``backbone``, texts get ``minilm-l6`` and images ``mobilenet-v2``. ``weights`` is the path of a
    file of weights for an image network given by name, relative to the workflow file. ``script =
    "simplified"`` reads traditional Chinese characters as simplified ones, in every artifact too.
    """

    backbone: PathText | None = None
    weights: PathText = PRETRAINED
    pooling: Literal["mean", "cls", "pooler"] | None = None
    script: Literal["simplified"] | None = None
    image_size: ImageSide | Annotated[list[ImageSide], Field(min_length=2, max_length=2)] | None = None
    aspect: Literal["stretch", "crop", "pad"] = "stretch"
    train_batch_norm: bool = False
    dropout_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    allow_unsafe: bool = False


class Top(Section):
    """``{ top = k }``: the top ``k`` blocks of the backbone, and the head."""

    top: Positive


class PhaseSection(Section):
    """``[[transfer.phases]]``: what is trained, for how long, at which peak learning rate."""

    train: Annotated[Literal["head", "all"] | Top, BeforeValidator(check_trained_part)]
    epochs: Positive
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]


class SourceSection(RowsSection):
    """``[transfer.source]``: a second data set, of the same kind, that is learned beside ``[data]``.

    Its loss weighs ``alpha``, or the best of several on the validation rows of ``[data]``.
    """

    alpha: NotNegative | Annotated[list[NotNegative], Field(min_length=1)] = 1.0
    alpha_schedule: Literal["constant", "linear", "cosine"] = "constant"
    source_share: Annotated[float, Field(gt=0.0)] = 1.0


class TransferSection(Section):
    """``[transfer]``: the phases of the fine-tuning, in order; without them, those of `tfapp.train`."""

    phases: Annotated[list[PhaseSection], Field(min_length=1)] | None = None
    source: SourceSection | None = None


class HardwareSection(Section):
    """``[hardware]``: which devices train."""

    strategy: Literal["auto", "one_device", "mirrored", "multi_worker", "tpu"] = "auto"
    virtual_devices: Annotated[int, Field(ge=2)] | None = None


class BoardSection(Section):
    """``[train.tensorboard]``: what is written for TensorBoard beside losses and metrics; see `Board`."""

    every: Positive = 50
    histograms: bool = False
    predictions: Annotated[int, Field(ge=0)] = 0
    hparams: bool = True
    profile_steps: (
        Annotated[list[Positive], Field(min_length=2, max_length=2), AfterValidator(check_ascending)] | None
    ) = None


class TrainSection(Section):
    """``[train]``: how each phase is trained."""

    batch_size: Positive = 32
    num_microbatches: Positive = 1
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    warmup_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    learning_rate_scaling: Literal["none", "linear", "sqrt"] = "none"
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    clip_norm: Annotated[float, Field(gt=0.0)] | None = 1.0
    class_weight: Literal["balanced"] | dict[str, Annotated[float, Field(ge=0.0)]] | None = None
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: Annotated[float, Field(ge=0.0)] = 2.0
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    sampling: Literal["natural", "balanced"] = "natural"
    views: Positive = 2
    monitor: Literal[
        "val_accuracy", "val_balanced_accuracy", "val_loss", "accuracy", "balanced_accuracy", "loss"
    ] = "val_accuracy"
    keep_best: bool = True
    patience: Positive | None = None
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "auto"
    objective: Literal["standard"] = "standard"
    feature_cache_megabytes: Annotated[float, Field(ge=0.0)] = 2048.0
    checkpoint_steps: Positive | None = None
    tensorboard: bool | BoardSection = True


class HardenSection(Section):
    """``[harden]``: adversarial training of the transferred model.

    ``objective`` is one of `tfapp.objectives.OBJECTIVES`, and the keys that are not set are its defaults; one
    that it does not have is refused. Without ``phases``, everything is trained for 3 epochs at 5e-5. The last
    epoch is kept unless ``keep_best`` says otherwise: the best on clean rows is seldom the most robust.
    ``probe`` watches single-step attacks on images for catastrophic overfitting. ``norm`` and ``batch_norm``
    go with images; ``"word_augmented"`` with texts, changed as `[data.augment]` says. ``attack`` is another
    attack of ``"adversarial"``.
    """

    objective: Literal[
        "adversarial", "free", "trades", "mart", "fgm", "freelb", "smart", "vat", "word_augmented"
    ]
    phases: Annotated[list[PhaseSection], Field(min_length=1)] | None = None
    keep_best: bool = False
    probe: bool = True
    epsilon: NotNegative | None = None
    norm: Literal["linf", "l2"] | None = None
    num_steps: Positive | None = None
    step_size: NotNegative | None = None
    random_start: bool | None = None
    adversarial_weight: Fraction | None = None
    batch_norm: Literal["clean", "adversarial"] | None = None
    attack: (
        Literal[
            "standard",
            "fgsm",
            "pgd",
            "apgd",
            "apgd_t",
            "fab",
            "square",
            "embedding_fgm",
            "embedding_pgd",
        ]
        | None
    ) = None
    beta: NotNegative | None = None
    weight: NotNegative | None = None
    start: Fraction | None = None
    replays: Positive | None = None
    variants: Positive | None = None

    def perturbed(self, kind: str) -> set[str]:
        """Tells what its phases perturb: ``"pixels"``, or the ``"embeddings"`` of tokens and features.

        Args:
            kind: What the rows are: ``"text"`` or ``"image"``.
        """
        trained = ["all"] if self.phases is None else [phase.train for phase in self.phases]
        return {"pixels" if kind == "image" and part == "all" else "embeddings" for part in trained}


class DistillSection(Section):
    """``[distill]``: a small student of the trained model, which is then measured and shipped in its place.

    The keys are arguments of `tfapp.distill`; ``batch_size`` and ``patience`` are those of ``[train]`` where
    they are not set, as is all else that ``[train]`` says. ``unlabelled`` is the path of texts without
    labels, relative to the workflow file; tables have them in the column ``data.text``.
    """

    num_layers: Positive | None = None
    layers: Annotated[list[Positive], Field(min_length=1)] | None = None
    vocabulary: Literal["texts", "whole"] = "texts"
    min_count: Positive = 1
    vocabulary_size: Positive | None = None
    intermediate_dim: Positive | None = None
    unlabelled: PathText | None = None
    temperature: Annotated[float, Field(gt=0.0)] = 2.0
    label_weight: NotNegative = 0.5
    logits_weight: NotNegative = 1.0
    hidden_weight: NotNegative = 1.0
    hidden_loss: Literal["cosine", "mse"] = "cosine"
    epochs: Positive = 5
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 2e-4
    batch_size: Positive | None = None
    patience: Positive | None = None


class AttackSection(Section):
    """``[evaluate.attack]``: the attack under which robust accuracy is measured, of model and artifacts.

    ``max_queries`` and ``max_seconds`` end the search of attacks on texts, for one text and for all.
    """

    attack: Literal[
        "standard",
        "fgsm",
        "pgd",
        "apgd",
        "apgd_t",
        "fab",
        "square",
        "word_substitution",
        "character_edits",
    ] = "standard"
    epsilon: Annotated[float, Field(gt=0.0)] | None = None
    norm: Literal["linf", "l2"] | None = None
    num_steps: Positive | None = None
    num_restarts: Positive | None = None
    max_queries: Positive | None = None
    max_seconds: Annotated[float, Field(gt=0.0)] | None = None
    examples: Positive = 500
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class EvaluateSection(Section):
    """``[evaluate]``: how the trained model is measured."""

    batch_size: Positive = 128
    num_bootstrap: Positive = 1000
    calibrate: bool = True
    ledger: bool = False
    attack: AttackSection | None = None


class ExportSection(Section):
    """``[export]``: which artifacts are written; by default all that the model can be exported as.

    By default a quantised or ONNX file beyond its budget is left out; any other, and one that is named,
    refuses the release.

    The black box goes with ``[evaluate.attack]``. ``warmup`` says what the requests are made of by which a
    server warms up; with ``"held_out"``, copies of test rows are part of the release. ``web`` is the page for
    browsers; by default it is written if its runtime is in the cache.
    """

    variants: (
        Annotated[
            list[Literal["saved_model", "keras", "float32", "float16", "dynamic", "int8", "text", "onnx"]],
            Field(min_length=1),
        ]
        | None
    ) = None
    black_box_queries: Annotated[int, Field(ge=0)] = 200
    black_box_examples: Annotated[int, Field(ge=0)] = 50
    warmup: Literal["drawn", "held_out", "none"] = "drawn"
    web: bool | None = None


class VerifySection(Section):
    """``[verify]``: the budget of every artifact; what becomes of one beyond it is said at ``[export]``.

    Robust accuracy is measured under ``[evaluate.attack]``.
    """

    min_agreement: Fraction = 0.99
    max_accuracy_drop: Fraction = 0.01
    max_abs_difference: Fraction | None = None
    max_exact_difference: Fraction = 0.01
    max_scale_error: Fraction = 0.1
    max_golden_difference: Fraction = 0.5
    min_robust_accuracy: Fraction | None = None
    max_robust_accuracy_drop: Fraction = 0.02
