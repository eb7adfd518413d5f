"""What the stages of a workflow would refuse in their turn, refused before the first one begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfapp.config import WorkflowConfig
from tfapp.config_sections import AttackSection, DistillSection
from tfapp.errors import ConfigError
from tfapp.workflow_calls import augment_setting, harden_options

DISTILLED = {"temperature", "label_weight", "logits_weight", "hidden_weight", "hidden_loss"}


def check_stages(config: WorkflowConfig) -> None:
    """Refuses settings that a stage would refuse only after the work of those before it.

    Args:
        config: The workflow.

    Raises:
        ConfigError: When the file of weights or a model to attack is missing, when settings of the
            augmentation, the objective or the attack are unknown, out of range or of no effect, or when a
            package that an edit or an artifact needs is missing.
        AssetError: When the table of an edit cannot be fetched.
        DataError: When there are no texts without labels where they are named.
    """
    config.resolve_weights()
    _check_variants(config.export.variants or ())
    _check_augmentation(config)
    if config.harden is not None:
        harden_options(config, config.harden)
    if config.distill is not None:
        _check_distillation(config, config.distill)
    if config.evaluate.attack is not None:
        _check_attack(config.evaluate.attack, config.data.holds)


def _check_variants(variants: Sequence[str]) -> None:
    if "onnx" not in variants:
        return

    from tfapp.exporters import onnx_obstacle

    obstacle = onnx_obstacle()
    if obstacle:
        raise ConfigError(f"[export] variants: 'onnx' cannot be made: {obstacle}, or leave it out.")


def _check_augmentation(config: WorkflowConfig) -> None:
    setting = augment_setting(config)
    if setting is None:
        return

    from tfapp.data.augment import make_augmentation, make_text_augmentation
    from tfapp.training.adversarial import make_adversarial

    if config.data.holds == "text":
        make_text_augmentation(setting)
        return
    if isinstance(setting, Mapping):
        setting = dict(setting)
        make_adversarial(setting.pop("adversarial", None))
    make_augmentation(setting)


def _check_distillation(config: WorkflowConfig, section: DistillSection) -> None:
    from tfapp.data.unlabelled import unlabelled_paths
    from tfapp.objectives.distilled import Distilled

    settings = section.model_dump(include=DISTILLED)
    try:
        Distilled(**settings)
    except ConfigError as error:
        raise ConfigError(f"[distill] {error}") from error
    if section.unlabelled is not None:
        unlabelled_paths(config.resolve(section.unlabelled))


def _check_attack(section: AttackSection, kind: str) -> None:
    from tfapp.attacks import ATTACKS, standard_attacks
    from tfapp.attacks.words import WORD_ATTACKS
    from tfapp.evaluation import AttackSettings

    name, domain = section.attack, "words" if kind == "text" else "pixels"
    attacks: Mapping[str, Callable[..., Any]] = WORD_ATTACKS if domain == "words" else ATTACKS
    if name != "standard":
        attacks = {name: attacks[name]}
    elif domain == "pixels":
        attacks = {name: standard_attacks}
    try:
        settings = AttackSettings(**section.model_dump())
        settings.norm_of(domain)
        settings.epsilon_of(domain)
        for own_name, attack in attacks.items():
            settings.own_arguments(own_name, attack)
    except ConfigError as error:
        raise ConfigError(f"[evaluate.attack] {error}") from error
