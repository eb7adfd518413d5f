"""What a workflow file asks for, as the arguments of the functions that do it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tfapp.config import WorkflowConfig
from tfapp.config_rows import AugmentSection, RowsSection
from tfapp.config_sections import HardenSection, PhaseSection
from tfapp.errors import ConfigError

if TYPE_CHECKING:
    from tfapp.data.image import ImageData
    from tfapp.data.text import TextData
    from tfapp.models import Classifier
    from tfapp.training import CatastrophicOverfitting, Phase


def load_prepared(config: WorkflowConfig, directory: Path) -> TextData | ImageData:
    """Reads data that an earlier run prepared.

    Args:
        config: The workflow, which says whether they are texts or images.
        directory: The folder that they were saved into.

    Returns:
        The data.

    Raises:
        DataError: When it is missing or damaged.
    """
    from tfapp.data.image import ImageData
    from tfapp.data.text import TextData

    return ImageData.load(directory) if config.data.holds == "image" else TextData.load(directory)


def load_sharded(
    config: WorkflowConfig, section: RowsSection, paths: Mapping[str, str]
) -> TextData | ImageData | None:
    """Opens rows that `tfapp data shard` wrote.

    Args:
        config: The workflow.
        section: Where the rows come from.
        paths: Resolved paths by split.

    Returns:
        The data, whose training rows stay in their shards; None for any other source.

    Raises:
        ConfigError: When a setting does not go with shards, or only with them.
        DataError: When a shard is missing or damaged.
    """
    from tfapp.data.shards.streamed import is_sharded, load_sharded_data

    if "train" not in paths or not is_sharded(paths["train"]):
        if config.data.service is not None and section is config.data:
            raise ConfigError(
                "data.service makes batches from shards: write them with `tfapp data shard` and name their "
                "folder in data.train, or leave the key out."
            )
        return None
    if section is not config.data:
        raise ConfigError(
            f"transfer.source.train = {section.train!r} is a folder of shards, which are read for `data` "
            "only: give the source as files."
        )
    decided = set(RowsSection.model_fields) - {"train", "kind", "max_pixels"}
    given = sorted(decided & section.model_fields_set)
    if given:
        raise ConfigError(f"data.{given[0]}: the shards in {section.train} decide that; leave the key out.")
    data = load_sharded_data(paths["train"], service=config.data.service)
    if data.kind != section.holds:
        raise ConfigError(
            f"data.train = {section.train!r} holds shards of {data.kind}s, but the rows are {section.holds}s:"
            f' set data.kind = "{data.kind}".'
        )
    return data


def read_data(
    config: WorkflowConfig,
    section: RowsSection,
    source: str,
    paths: Mapping[str, str],
    target: ImageData | None,
) -> TextData | ImageData:
    """Reads, cleans and splits the texts or images of a section.

    Args:
        config: The workflow, which says whether they are texts or images.
        section: Where they come from, and how they are split.
        source: The training rows: a packaged set's name, or a resolved path.
        paths: Resolved paths by split.
        target: The target's data, for images of a source task.

    Returns:
        The data.

    Raises:
        DataError: When something cannot be used.
        AssetError: When a packaged set cannot be fetched.
    """
    options: dict[str, Any] = {
        "label": section.label,
        "validation": paths.get("validation"),
        "test": paths.get("test"),
        "format": section.format,
        "validation_fraction": section.validation_fraction,
        "test_fraction": section.test_fraction,
        "seed": config.seed,
    }
    if config.data.holds == "image":
        from tfapp.data.image import load_image_data

        return load_image_data(
            source,
            image=section.image,
            group=section.group,
            unreadable=section.unreadable,
            near_duplicates=section.near_duplicates,
            max_pixels=section.max_pixels,
            target=target,
            **options,
        )

    from tfapp.data.text import load_text_data

    return load_text_data(source, text=section.text, encoding=section.encoding, **options)


def build_classifier(
    config: WorkflowConfig,
    classes: Iterable[str],
    *,
    weights: Literal["pretrained"] | None = "pretrained",
    seed: int | None = None,
) -> Classifier:
    """Builds the classifier on its pretrained backbone, or on one with random weights.

    Args:
        config: The workflow.
        classes: Names of the classes in their order.
        weights: ``"pretrained"`` for those that the workflow names, or None for random weights.
        seed: Seed of random weights; the workflow's when None.

    Returns:
        The classifier.

    Raises:
        ConfigError: When settings do not fit the backbone, or there is no file of the weights.
        WeightsError: When the backbone cannot be loaded.
        AssetError: When a packaged backbone cannot be fetched.
    """
    section, backbone = config.model, config.resolve_backbone()
    options: dict[str, Any] = {
        "classes": tuple(classes),
        "dropout_rate": section.dropout_rate,
        "allow_unsafe": section.allow_unsafe,
        "weights": None if weights is None else config.resolve_weights(),
        "seed": config.seed if seed is None else seed,
    }
    if config.data.holds == "image":
        from tfapp.models import build_image_classifier

        return build_image_classifier(
            backbone,
            image_size=(size[0], size[1]) if isinstance(size := section.image_size, list) else size,
            aspect=section.aspect,
            max_pixels=config.data.max_pixels,
            # Random weights have no statistics worth keeping.
            train_batch_norm=section.train_batch_norm or weights is None,
            **options,
        )

    from tfapp.models import build_text_classifier

    return build_text_classifier(
        backbone,
        pooling=section.pooling,
        script=section.script,
        max_length=config.data.max_length,
        long_texts=config.data.long_texts,
        **options,
    )


def train_options(config: WorkflowConfig) -> dict[str, Any]:
    """Gives the settings of every training run.

    Args:
        config: The workflow.

    Returns:
        Arguments of `tfapp.train` by name.
    """
    phases = config.transfer.phases
    return {
        "phases": None if phases is None else [_phase(phase) for phase in phases],
        "max_length": config.data.max_length,
        "augment": augment_setting(config),
        **config.train.model_dump(),
    }


def harden_options(config: WorkflowConfig, section: HardenSection) -> dict[str, Any]:
    """Gives the settings of the training run that hardens a model.

    Args:
        config: The workflow.
        section: Its section ``harden``.

    Returns:
        Arguments of `tfapp.train` by name.

    Raises:
        ConfigError: When the objective has no setting of that name, or it is out of range.
    """
    from tfapp.objectives import make_objective
    from tfapp.training import Phase
    from tfapp.training.microbatches import check_divisible

    own = section.model_dump(exclude={"phases", "keep_best", "probe"}, exclude_none=True)
    phases = (
        [Phase("all", epochs=3, learning_rate=5e-5)]
        if section.phases is None
        else [_phase(phase) for phase in section.phases]
    )
    objective = make_objective(**own)
    given = {"phases": phases, "keep_best": section.keep_best, "objective": objective}
    check_divisible(config.train.num_microbatches, objective)
    return {**train_options(config), **given}


def read_unlabelled(config: WorkflowConfig) -> tuple[str, ...] | None:
    """Reads the texts without labels that a workflow distils with.

    Args:
        config: The workflow.

    Returns:
        The texts; None where none are named.

    Raises:
        DataError: When they cannot be read.
    """
    from tfapp.data.unlabelled import load_unlabelled_texts

    section = config.distill
    if section is None or section.unlabelled is None:
        return None
    source = config.resolve(section.unlabelled)
    return load_unlabelled_texts(source, text=config.data.text, encoding=config.data.encoding)


def overfitting_probes(
    config: WorkflowConfig, section: HardenSection | None, data: TextData | ImageData
) -> list[CatastrophicOverfitting]:
    """Watches training that attacks images in a single step, which can come to nothing within an epoch.

    Args:
        config: The workflow.
        section: Its section ``harden``; None for the transfer, whose augmentation alone may attack.
        data: Its data.

    Returns:
        The callbacks; none where they would be of no use.
    """
    if config.data.holds != "image" or not len(data.validation):
        return []
    budget = _single_step(section) if section is not None else None
    if budget is None and (section is None or section.probe):
        budget = _single_step_augmentation(config)
    if budget is None:
        return []

    from tfapp.training import CatastrophicOverfitting

    return [CatastrophicOverfitting(data.validation, seed=config.seed, **budget)]


def _single_step(section: HardenSection) -> dict[str, Any] | None:
    """The budget of an objective that attacks pixels in a single step, where that is to be watched."""
    single = section.objective == "free" or (
        section.objective == "adversarial"
        and section.num_steps in (None, 1)
        and section.attack in (None, "fgsm")
    )
    if not (section.probe and single and "pixels" in section.perturbed("image")):
        return None
    return section.model_dump(include={"epsilon", "norm", "random_start"}, exclude_none=True)


def _single_step_augmentation(config: WorkflowConfig) -> dict[str, Any] | None:
    """The same of the augmentation that attacks each batch."""
    augment = config.data.augment
    section = augment.adversarial if isinstance(augment, AugmentSection) else None
    if section is None or section.attack == "pgd" or section.refresh == "never":
        return None
    return section.model_dump(include={"epsilon", "norm"}, exclude_none=True)


def augment_setting(config: WorkflowConfig) -> str | dict[str, Any] | None:
    """Gives what is done to training rows.

    Args:
        config: The workflow.

    Returns:
        The argument ``augment`` of `tfapp.train`.

    Raises:
        ConfigError: When there is no model where one is named.
    """
    section = config.data.augment
    if section is None or isinstance(section, str):
        return section
    setting = section.model_dump(exclude_none=True)
    adversarial = setting.get("adversarial", {})
    if "model" in adversarial:
        path = config.resolve(adversarial["model"])
        if not Path(path).exists():
            raise ConfigError(
                f"data.augment.adversarial.model = {adversarial['model']!r}: there is no {path}; name a "
                ".keras file or a release's folder, or leave the key out to attack the model that is trained."
            )
        adversarial["model"] = path
    return setting


def _phase(section: PhaseSection) -> Phase:
    from tfapp.training import Phase

    part = section.train if isinstance(section.train, str) else section.train.top
    return Phase(train=part, epochs=section.epochs, learning_rate=section.learning_rate)
