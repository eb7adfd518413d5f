"""Export: write every artifact, measure each in a fresh process, release all of them or none."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfapp import __version__
from tfapp.errors import ConfigError, DataError, ReleaseRefused, TfappError
from tfapp.evaluation.robustness import AttackSettings, Robustness
from tfapp.exporters import export_web_page, in_float32
from tfapp.release.answers import Reference
from tfapp.release.artifacts import choose_variants
from tfapp.release.attacked import attack_model, check_sendable
from tfapp.release.class_figures import ClassFigures
from tfapp.release.gate import Budget
from tfapp.release.integrity import hash_files, sha256
from tfapp.release.manifest import manifest_checksum, plain, read_manifest, write_manifest
from tfapp.release.measure import measure
from tfapp.release.model_card import model_card, preset_name, terms
from tfapp.release.page_runtime import page_runtime
from tfapp.release.publish import Staging, publish, refuse, staging
from tfapp.release.report_page import FILE_NAME as REPORT
from tfapp.release.report_page import release_page
from tfapp.release.serving_bundle import write_serving_bundle
from tfapp.release.versions import check_name
from tfapp.release.warmup import check_warmup, write_warmup

_logger = logging.getLogger("tfapp")


@dataclass(frozen=True)
class Release:
    """A released version.

    Attributes:
        path: The version folder, ``saved_models/<name>/<version>``.
        version: Its number.
        manifest: What `manifest.json` says.
        manifest_sha256: The checksum of that file, which stands for the whole release: keep it elsewhere and
            give it to `verify` and `load_release`, which then take no other.
    """

    path: Path
    version: int
    manifest: dict[str, Any]
    manifest_sha256: str

    @classmethod
    def load(cls, path: str | Path) -> Release:
        """Reads the manifest of a released version, without checking its files.

        Args:
            path: A version folder.

        Returns:
            The release.

        Raises:
            ReleaseError: When it is no version folder.
        """
        directory = Path(path).absolute()
        checksum = manifest_checksum(directory)
        manifest = read_manifest(directory, manifest_sha256=checksum)
        return cls(directory, int(manifest["version"] or 0), manifest, checksum)

    def table(self) -> list[dict[str, str]]:
        """Returns a row for each artifact, for people to read."""
        return artifact_table(self.manifest)


def artifact_table(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    """Lays out the artifacts of a manifest for people to read.

    Args:
        manifest: The manifest.

    Returns:
        A row for each artifact, all with the same columns.
    """

    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    def scale(row: Mapping[str, Any]) -> str:
        if row["scale"] is not None:
            return f"{row['scale']:.3f} on {row['scale_rows']} of {row['examples']} rows"
        return "-" if row["agreement"] is None else "not measurable"

    return [
        {
            "artifact": row["variant"],
            "path": row["path"],
            "MB": f"{row['bytes'] / 1e6:.1f}",
            "agreement": number(row["agreement"], ".2%"),
            "max difference": number(row["max_abs_difference"], ".5f"),
            "accuracy": number(row["accuracy"], ".4f"),
            "drop": number(row["accuracy_drop"], ".4f"),
            "robust": number(row.get("robust_accuracy"), ".4f"),
            "scale": scale(row),
            "p50 ms": number((row["latency_ms"] or {}).get("p50"), ".2f"),
            "p95 ms": number((row["latency_ms"] or {}).get("p95"), ".2f"),
            "verdict": row["verdict"],
        }
        for row in manifest["artifacts"]
    ]


def export(
    model: Any,
    directory: str | Path,
    *,
    check_with: Any,
    variants: Sequence[str] | None = None,
    budget: Budget | None = None,
    evaluation: Any = None,
    config: Mapping[str, Any] | None = None,
    data: Any = None,
    attack: Robustness | AttackSettings | Mapping[str, Any] | None = None,
    black_box_queries: int = 200,
    black_box_examples: int = 50,
    warmup: str = "drawn",
    web: bool | None = None,
    seed: int | None = None,
) -> Release:
    """Exports a classifier, measures every artifact in a fresh process, and releases them if all are good.

    Args:
        model: A trained classifier.
        directory: ``saved_models/<name>``; the release becomes its next free version. The name has 1 to 64
            of the characters a-z, 0-9, ``_`` and ``-``.
        check_with: The rows to measure on, all of them; the test split.
        variants: Which artifacts to write: ``saved_model``, ``keras``, ``float32``, ``float16``, ``dynamic``,
            ``int8`` (images) and ``text`` (texts). When None, all that this model can be exported as; what is
            left out is logged.
        budget: How far an artifact may be from the model; ``Budget()`` when None.
        evaluation: Scores of the model for the manifest: an `Evaluation`, or a mapping.
        config: The settings that the model was made with, for the manifest.
        data: The `TextData` or `ImageData` whose sizes and fingerprints go into the manifest, and on whose
            training rows ``int8`` is calibrated; just ``check_with`` and no ``int8`` if None.
        attack: The attack under which the robust accuracy of every artifact is measured: an attack's settings
            (see `AttackSettings`), made on rows of ``check_with``, or what `evaluate_robustness`
            found on them. Its examples are sent to every artifact, and each TFLite and ONNX file is attacked
            itself by asking for its answers. Pixels are rounded to whole grey levels within the budget first,
            as devices and servers take them. None measures no robustness.
        black_box_queries: How often that attack on such a file itself may ask about a row; 0 leaves it out.
        black_box_examples: On how many rows it is tried, drawn from those that survive the examples of the
            model.
        warmup: The requests in the release by which TF Serving warms up: ``"drawn"`` at random, texts with as
            many tokens as some of ``check_with``, images of their formats and sizes; ``"held_out"`` for
            copies of these rows, which whoever has the release can read; or ``"none"``.
        web: Whether the release gets ``edge/web/``, a page that runs its ``.tflite`` files in a browser and
            takes 6 MB. None for one if the page's runtime is in the cache; True fetches it if it is not.
        seed: The seed that the model was made with, for the manifest.

    Returns:
        The release. ``serving/`` beside the versions is brought up to date; see `write_serving_bundle`.

    Raises:
        ReleaseRefused: When an artifact is beyond its budget; what was written is in ``refused-<timestamp>``.
        OutputError: When the folder cannot be written, the disk is full, or the name is unsafe.
        ConfigError: When a variant is unknown or cannot be made of this model, ``evaluation`` is of other
            classes or another temperature than the model's, or a page is wanted that could run no variant.
        AssetError: When a page is wanted and its runtime cannot be fetched.
        DataError: When ``check_with`` is empty or has other classes than the model, or an image cannot be
            read or decoded any more.
    """
    directory = Path(directory).expanduser().absolute()
    name = check_name(directory)
    check_warmup(warmup)
    variants = choose_variants(model, variants, calibrated=data is not None)
    budget = budget or Budget()
    given = {} if evaluation is None else _scores(evaluation, model)
    _check_rows(model, check_with)
    if budget.min_robust_accuracy is not None and attack is None:
        raise ConfigError(
            f"min_robust_accuracy = {budget.min_robust_accuracy}: it is measured under an attack, and there "
            "is none: give attack=..., or leave the limit out."
        )
    limits = {"black_box_queries": black_box_queries, "black_box_examples": black_box_examples}
    for limit, value in limits.items():
        if value < 0:
            raise ConfigError(f"{limit} = {value}: it must be 0 or more.")
    runtime = page_runtime(web, model, variants)
    attacked = None if attack is None else _attacked(attack, model, check_with)
    settings = dict(config) if config is not None else _own_config(model)
    preset = getattr(model, "preset", "")
    sources = () if data is None else tuple(data.report.sources.values())
    with staging(directory) as stage:
        _logger.info("export: %s", ", ".join(variants))
        calibration = () if data is None else data.train.features
        measured = measure(
            model,
            check_with,
            variants,
            budget,
            stage,
            calibration=calibration,
            robustness=attacked,
            black_box=(black_box_queries, black_box_examples),
            licence=" ".join(terms(preset, settings, sources)),
        )
        reasons = measured.reasons
        content: dict[str, Any] = {
            "schema_version": 1,
            "name": name,
            "version": None,
            "tfapp_version": __version__,
            "libraries": measured.libraries,
            "seed": seed,
            "config": settings,
            "data": _splits(data, check_with),
            "metrics": _metrics(given, measured.reference, attacked),
            "release": {
                "verdict": "refused" if reasons else "released",
                "reasons": reasons,
                "budget": asdict(budget),
            },
            "artifacts": measured.rows,
        }
        rows, feature = artifact_table(content), model.preprocessor.feature_name
        copied = 0
        if "saved_model" in variants and not reasons:
            copied = _warm_up(model, check_with, stage, kind=warmup)
        card = model_card(
            plain(content), preset=preset, table=rows, sources=sources, feature=feature, copied=copied
        )
        (stage.release / "model_card.md").write_text(card, encoding="utf-8")
        if runtime is not None and not reasons:
            export_web_page(model, stage.release, name=name, runtime=runtime, variants=variants)
        content["files"] = hash_files(stage.release)
        classes = ClassFigures.of(given, measured.reference)

        def finish(version: int | None) -> None:
            # The page tells the version and the other files' checksums, so it is written last but one.
            numbered = {**content, "version": version}
            page = release_page(
                plain(numbered), classes=classes, preset=preset, rows=rows, sources=sources, feature=feature
            )
            (stage.release / REPORT).write_text(page, encoding="utf-8")
            files = {**content["files"], REPORT: sha256(stage.release / REPORT)}
            write_manifest(stage.release, {**numbered, "files": dict(sorted(files.items()))})

        if reasons:
            finish(None)
            raise ReleaseRefused(reasons, refuse(stage))
        path, version = publish(stage, finish)
        _logger.info("verify: every artifact is within its budget; released as version %d", version)
        try:
            write_serving_bundle(directory)
        except (TfappError, OSError, ValueError) as error:
            _logger.warning(
                "serving: %s The release is whole; tfapp.release.write_serving_bundle(%r)"
                " writes the configuration of servers then.",
                error,
                str(directory),
            )
        if runtime is not None:
            _logger.info(
                "export: its page for browsers is /web/ of "
                "`python -m http.server --bind 127.0.0.1 --directory %s`",
                shlex.quote(str(path / "edge")),
            )
        return Release.load(path)


def _warm_up(model: Any, split: Any, stage: Staging, *, kind: str) -> int:
    """Writes the warm-up requests, and counts the rows that are copied for them."""
    count = write_warmup(
        model.preprocessor, split.features, stage.release, name=stage.directory.name, kind=kind
    )
    if kind != "held_out":
        return 0
    _logger.warning("export: the release holds copies of %d rows of %s", count, split.name)
    return count


def _check_rows(model: Any, split: Any) -> None:
    if len(split) == 0:
        raise DataError(f"the split {split.name!r} to check with has no rows.")
    if tuple(split.classes) != tuple(model.classes):
        raise DataError(
            f"the split {split.name!r} to check with has the classes {list(split.classes)}, but the model "
            f"has {list(model.classes)}."
        )


def _splits(data: Any, check_with: Any) -> dict[str, dict[str, Any]]:
    splits = {check_with.name: check_with} if data is None else data.splits
    return {name: {"rows": len(split), "sha256": split.sha256} for name, split in splits.items()}


def _scores(evaluation: Any, model: Any) -> dict[str, Any]:
    """Returns the scores of an evaluation, after a look whether it is one of this model as it is now."""
    scores = dict(evaluation) if isinstance(evaluation, Mapping) else evaluation.to_dict()
    classes, temperature = scores.get("classes"), scores.get("temperature")
    cure = "Give the answer of evaluate(model, data.test), called after the last training and calibration."
    if classes is not None and list(classes) != list(model.classes):
        raise ConfigError(
            f"evaluation is of the classes {list(classes)}, but the model has {list(model.classes)}. {cure}"
        )
    if temperature is not None and not math.isclose(temperature, model.temperature, rel_tol=1e-6):
        raise ConfigError(
            f"evaluation was made at temperature {temperature:g}, but the model's is now "
            f"{model.temperature:g}. {cure}"
        )
    return scores


def _attacked(attack: Robustness | AttackSettings | Mapping[str, Any], model: Any, split: Any) -> Robustness:
    """Makes the adversarial examples, if they are not there."""
    made = attack if isinstance(attack, Robustness) else attack_model(in_float32(model), split, attack)
    check_sendable(made, split)
    return made


def _metrics(given: Mapping[str, Any], reference: Reference, robustness: Robustness | None) -> dict[str, Any]:
    scores = {"accuracy": reference.accuracy, **given, "temperature": reference.temperature}
    return scores if robustness is None else {**scores, "robustness": robustness.to_dict()}


def _own_config(model: Any) -> dict[str, Any]:
    inputs = {name: value for name, value in model.preprocessor.get_config().items() if name != "vocabulary"}
    return {
        "model": {
            "preset": preset_name(getattr(model, "preset", "")),
            "task": model.task,
            **model.settings,
            **inputs,
        }
    }
