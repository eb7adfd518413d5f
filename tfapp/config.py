"""The schema of a workflow file: every key, its type, its range and its default.

Only the command line and the workflow read this module and those of its sections; everything below them takes
plain keyword arguments. The defaults are those of the functions that the keys are handed to; a test compares
them.
"""

from __future__ import annotations

import glob
import os
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, PrivateAttr, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from tfapp.config_errors import describe
from tfapp.config_overrides import apply_override
from tfapp.config_rows import (
    DATA_KEYS,
    AdversarialSection,
    AugmentSection,
    DataSection,
    Section,
    check_kind,
)
from tfapp.config_sections import (
    PRETRAINED,
    WORD_ATTACKS,
    AttackSection,
    DistillSection,
    EvaluateSection,
    ExportSection,
    HardenSection,
    HardwareSection,
    ModelSection,
    TrainSection,
    TransferSection,
    VerifySection,
)
from tfapp.config_values import VARIABLE, Name
from tfapp.data.pixel_budgets import beyond_the_range
from tfapp.errors import ConfigError, nearest

_BACKBONES = {"text": "minilm-l6", "image": "mobilenet-v2"}
_ATTACK_KEYS = {
    "verify": ("min_robust_accuracy", "max_robust_accuracy_drop"),
    "export": ("black_box_queries", "black_box_examples"),
}
_IMAGE_HARDENING = {
    "norm": "what is done to texts is measured by the Euclidean norm of their own embeddings",
    "batch_norm": "networks of texts have no batch normalisation",
}
_ON_PIXELS = ("adversarial", "free", "trades", "mart")
_MODEL_KEYS = {
    "text": ("pooling", "script"),
    "image": ("image_size", "aspect", "train_batch_norm", "weights"),
}


class WorkflowConfig(Section):
    """A whole workflow file."""

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataSection
    model: ModelSection = ModelSection()
    transfer: TransferSection = TransferSection()
    train: TrainSection = TrainSection()
    hardware: HardwareSection = HardwareSection()
    harden: HardenSection | None = None
    distill: DistillSection | None = None
    evaluate: EvaluateSection = EvaluateSection()
    export: ExportSection = ExportSection()
    verify: VerifySection = VerifySection()

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @model_validator(mode="after")
    def _check_model(self) -> WorkflowConfig:
        check_kind(self.model, self.data.holds, _MODEL_KEYS)
        source = self.transfer.source
        if source is not None:
            if (source.dataset or source.kind) and source.holds != self.data.holds:
                raise PydanticCustomError(
                    "kind",
                    "`transfer.source` holds {other}s, but `data` holds {kind}s",
                    {"other": source.holds, "kind": self.data.holds},
                )
            check_kind(source, self.data.holds, DATA_KEYS)
        if isinstance(self.data.augment, AugmentSection) and self.data.augment.adversarial is not None:
            _check_reach("data.augment.adversarial", self.data.augment.adversarial)
        self._check_harden()
        if self.distill is not None and self.data.holds == "image":
            raise PydanticCustomError(
                "distill", "`distill` goes with texts, but the rows are images; leave the section out"
            )
        self._check_attack()
        return self

    def _check_harden(self) -> None:
        section, kind = self.harden, self.data.holds
        if section is None:
            return
        for key, reason in _IMAGE_HARDENING.items():
            if kind == "text" and key in section.model_fields_set:
                raise PydanticCustomError(
                    "harden",
                    "`harden.{key}` goes with images: {reason}; leave it out",
                    {"key": key, "reason": reason},
                )
        perturbed = section.perturbed(kind)
        attacked = "embeddings" if str(section.attack).startswith("embedding_") else "pixels"
        if section.attack is not None and perturbed != {attacked}:
            raise PydanticCustomError(
                "harden",
                "`harden.attack` = {attack} is for {attacked}, and these phases perturb {perturbed}: "
                "'embedding_fgm' and 'embedding_pgd' are for texts and for phases above a frozen network, "
                "the others for images in phases that train 'all'",
                {
                    "attack": repr(section.attack),
                    "attacked": attacked,
                    "perturbed": " and ".join(sorted(perturbed)),
                },
            )
        if "pixels" in perturbed and section.objective in _ON_PIXELS:
            _check_reach("harden", section)
        if section.objective != "word_augmented":
            return
        if kind == "image":
            raise PydanticCustomError(
                "harden",
                "`harden.objective` = 'word_augmented' trains on changed texts, but the rows are images; "
                "'adversarial' and 'trades' are for images",
            )
        augment = self.data.augment
        if not isinstance(augment, AugmentSection) or not (augment.edits or augment.corruptions):
            raise PydanticCustomError(
                "harden",
                "`harden.objective` = 'word_augmented' trains on changed texts: say how, with "
                "`edits` or `corruptions` in `[data.augment]`, such as edits = ['swap', 'keyboard']",
            )

    def _check_attack(self) -> None:
        attack = self.evaluate.attack
        if attack is None:
            for name, keys in _ATTACK_KEYS.items():
                for key in sorted(getattr(self, name).model_fields_set & set(keys)):
                    raise PydanticCustomError(
                        "attack",
                        "`{key}` is of no effect without `[evaluate.attack]`; add it, or leave the key out",
                        {"key": f"{name}.{key}"},
                    )
            return
        kind = self.data.holds
        if attack.attack != "standard" and (attack.attack in WORD_ATTACKS) != (kind == "text"):
            raise PydanticCustomError(
                "attack",
                "`evaluate.attack.attack` = {attack} does not go with {kind}s; 'standard' does",
                {"attack": attack.attack, "kind": kind},
            )
        if kind == "image" and attack.epsilon is not None and 255 * attack.epsilon < 1 - 1e-6:
            raise PydanticCustomError(
                "attack",
                "`evaluate.attack.epsilon` = {epsilon} is less than one grey level of 255, the least that "
                "artifacts can be sent; give 1/255 = 0.00392 or more",
                {"epsilon": attack.epsilon},
            )
        if kind == "image":
            _check_reach("evaluate.attack", attack)
        if kind == "text" and attack.norm is not None:
            raise PydanticCustomError(
                "attack", "`evaluate.attack.norm` goes with images; for texts epsilon is a share of words"
            )

    @property
    def backbone(self) -> str:
        """The backbone's name or path as the file has it, or the default for such rows."""
        return self.model.backbone or _BACKBONES[self.data.holds]

    def resolve(self, path: str) -> str:
        """Makes a path of the file absolute: variables filled in, relative to the file's folder.

        Args:
            path: A path or glob as the file has it.

        Returns:
            The absolute path, or the glob: what exists is a path, and only the signs that stand in the file
            make a pattern, not those in the names of the folders before it.
        """
        plain = self._folder / Path(_fill(path, os.environ.__getitem__)).expanduser()
        if plain.exists() or not glob.has_magic(path):
            return str(plain)
        pattern = _fill(path, lambda variable: glob.escape(os.environ[variable]))
        return str(Path(glob.escape(str(self._folder))) / Path(pattern).expanduser())

    def resolve_backbone(self) -> str:
        """Tells a preset's name from a path: what exists beside the workflow file is meant as such.

        Returns:
            The absolute path, or the name as it stands.
        """
        backbone = self.backbone
        path = self.resolve(backbone)
        is_path = "${" in backbone or backbone.startswith((".", "/", "~"))
        return path if is_path or Path(path).exists() else backbone

    def resolve_weights(self) -> str:
        """Finds the file of the backbone's weights, if one is named.

        Returns:
            Its absolute path, or ``"pretrained"``.

        Raises:
            ConfigError: There is no such file.
        """
        weights = self.model.weights
        if weights == PRETRAINED:
            return weights
        path = self.resolve(weights)
        try:
            with Path(path).open("rb"):
                return path
        except FileNotFoundError as error:
            raise ConfigError(
                f"model.weights = {weights!r}: there is no file {path}; name a .h5 or .safetensors file, or "
                f"leave the key out for the weights of {self.backbone!r}."
            ) from error
        except OSError as error:
            raise ConfigError(
                f"model.weights = {weights!r}: {path} cannot be read ({error.strerror}); name a file that "
                "you may read."
            ) from error


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> WorkflowConfig:
    """Reads a workflow file and checks every key of it.

    Args:
        path: The TOML file.
        overrides: ``key=value`` settings that replace the file's, keys dotted, values as in TOML (a bare
            word is a string): ``train.batch_size=16``, ``transfer.phases.0.epochs=1``.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: The file cannot be read, or keys or values are wrong; all of them are listed.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        beside = [str(other) for other in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        hint = f"; {nearest(str(path), beside)}" if beside else ""
        raise ConfigError(f"{path}: no such workflow file{hint}") from error
    except OSError as error:
        raise ConfigError(f"{path}: the workflow file cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    for override in overrides:
        apply_override(document, override)
    try:
        config = WorkflowConfig.model_validate(document)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise ConfigError(describe(problems, WorkflowConfig, path, overrides)) from error
    config._folder = path.resolve().parent
    return config


def _check_reach(name: str, section: AdversarialSection | AttackSection | HardenSection) -> None:
    """Refuses budgets beyond the range of pixels."""
    for key in ("epsilon", "step_size"):
        problem = beyond_the_range(f"`{name}.{key}`", getattr(section, key, None), section.norm)
        if problem is not None:
            raise PydanticCustomError("budget", "{problem}", {"problem": problem})


def _fill(path: str, value: Callable[[str], str]) -> str:
    return VARIABLE.sub(lambda match: value(match[1]), path)
