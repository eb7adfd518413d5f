"""Export: write every artifact, measure each in a fresh process, release all of them or none."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tfapp import __version__
from tfapp.errors import ConfigError, DataError, ReleaseRefused, TfappError
from tfapp.evaluation.robustness import AttackSettings, Robustness
from tfapp.exporters import export_web_page, in_float32
from tfapp.release.artifacts import choose_variants
from tfapp.release.attacked import attack_model, check_sendable
from tfapp.release.class_figures import ClassFigures
from tfapp.release.gate import DISPENSABLE_VARIANTS, Budget
from tfapp.release.integrity import hash_files, sha256
from tfapp.release.manifest import plain, write_manifest
from tfapp.release.manifest_content import checked_scores, metrics, model_config, splits
from tfapp.release.measure import measure
from tfapp.release.model_card import model_card, terms
from tfapp.release.page_runtime import page_runtime
from tfapp.release.publish import Staging, own_files, publish, refuse, staging
from tfapp.release.release import Release, artifact_table
from tfapp.release.report_page import FILE_NAME as REPORT
from tfapp.release.report_page import release_page
from tfapp.release.serving_bundle import write_serving_bundle
from tfapp.release.versions import check_name
from tfapp.release.warmup import check_warmup, write_warmup

_logger = logging.getLogger("tfapp")


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
            ``int8`` (images), ``text`` (texts) and ``onnx``. When None, all that this model can be exported
            as, but for those of ``float16``, ``dynamic``, ``int8``, ``text`` and ``onnx`` that are beyond
            their budget; what is left out is logged.
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
        ReleaseRefused: When an artifact is beyond its budget and not left out for it, or is damaged; what was
            written is in ``refused-<timestamp>``.
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
    dispensable = DISPENSABLE_VARIANTS if variants is None else ()
    variants = choose_variants(model, variants, calibrated=data is not None)
    budget = budget or Budget()
    given = checked_scores(evaluation, model)
    _check_rows(model, check_with)
    _check_attack(budget, attack, black_box_queries=black_box_queries, black_box_examples=black_box_examples)
    runtime = page_runtime(web, model, variants)
    attacked = None if attack is None else _attacked(attack, model, check_with)
    settings = dict(config) if config is not None else model_config(model)
    about: dict[str, Any] = {
        "preset": getattr(model, "preset", ""),
        "sources": () if data is None else tuple(data.report.sources.values()),
    }
    with staging(directory) as stage:
        _logger.info("export: %s", ", ".join(variants))
        measured = measure(
            model,
            check_with,
            variants,
            budget,
            stage,
            dispensable=dispensable,
            calibration=() if data is None else data.train.features,
            robustness=attacked,
            black_box=(black_box_queries, black_box_examples),
            licence=" ".join(terms(about["preset"], settings, about["sources"])),
        )
        reasons, variants = measured.reasons, tuple(row["variant"] for row in measured.rows)
        content: dict[str, Any] = {
            "schema_version": 1,
            "name": name,
            "version": None,
            "tfapp_version": __version__,
            "libraries": measured.libraries,
            "seed": seed,
            "config": settings,
            "data": splits(data, check_with),
            "metrics": metrics(given, measured.reference, attacked),
            "release": {
                "verdict": "refused" if reasons else "released",
                "reasons": reasons,
                "budget": asdict(budget),
            },
            "artifacts": measured.rows,
            "left_out": measured.left_out,
        }
        about |= {"rows": artifact_table(content), "feature": model.preprocessor.feature_name}
        copied = 0
        if "saved_model" in variants and not reasons:
            copied = _warm_up(model, check_with, stage, kind=warmup)
        card = model_card(plain(content), copied=copied, **about)
        (stage.release / "model_card.md").write_text(card, encoding="utf-8")
        if not set(model.preprocessor.web_variants) & set(variants):
            runtime = None
        if runtime is not None and not reasons:
            export_web_page(model, stage.release, name=name, runtime=runtime, variants=variants)
        own_files(stage)
        content["files"] = hash_files(stage.release)
        last = _LastFiles(
            stage.release, content, about | {"classes": ClassFigures.of(given, measured.reference)}
        )
        if reasons:
            last.write(None)
            raise ReleaseRefused(reasons, refuse(stage))
        path, version = publish(stage, last.write)
        _tell_left_out(measured.left_out)
        release = Release(path, version, last.manifest, last.manifest_sha256)
        _logger.info("verify: every artifact is within its budget; released as version %d", version)
        _configure_servers(directory)
        if runtime is not None:
            _logger.info(
                "export: its page for browsers is /web/ of "
                "`python -m http.server --bind 127.0.0.1 --directory %s`",
                shlex.quote(str(path / "edge")),
            )
        return release


class _LastFiles:
    """The files that tell the version: the page, and the manifest, which vouches for all others.

    Args:
        folder: The release in the making.
        content: The manifest, whose ``files`` are there already.
        page: What else the page is made from.
    """

    def __init__(self, folder: Path, content: Mapping[str, Any], page: Mapping[str, Any]) -> None:
        self._folder, self._content, self._page = folder, content, page
        self.manifest: dict[str, Any] = {}
        self.manifest_sha256 = ""

    def write(self, version: int | None) -> None:
        """Writes them for a version; None is for a release that was refused."""
        numbered = plain({**self._content, "version": version})
        (self._folder / REPORT).write_text(release_page(numbered, **self._page), encoding="utf-8")
        numbered["files"][REPORT] = sha256(self._folder / REPORT)
        numbered["files"] = dict(sorted(numbered["files"].items()))
        self.manifest_sha256 = write_manifest(self._folder, numbered)
        self.manifest = numbered


def _tell_left_out(left_out: Sequence[Mapping[str, Any]]) -> None:
    for row in left_out:
        _logger.warning(
            "export: %s is left out of the release: %s. To release it, widen that limit ([verify] of a "
            "workflow, budget=Budget(...) in Python); to have the release refused, name it in variants.",
            row["variant"],
            "; ".join(reason.removeprefix(f"{row['variant']}: ") for reason in row["reasons"]),
        )


def _configure_servers(directory: Path) -> None:
    """Brings ``serving/`` up to date; the release is public already, and stays whatever goes wrong here."""
    try:
        write_serving_bundle(directory)
    except (TfappError, OSError, ValueError) as error:
        _logger.warning(
            "serving: %s The release is whole; tfapp.release.write_serving_bundle(%r)"
            " writes the configuration of servers then.",
            error,
            str(directory),
        )


def _check_attack(budget: Budget, attack: object, **limits: int) -> None:
    if budget.min_robust_accuracy is not None and attack is None:
        raise ConfigError(
            f"min_robust_accuracy = {budget.min_robust_accuracy}: it is measured under an attack, and there "
            "is none: give attack=..., or leave the limit out."
        )
    for limit, value in limits.items():
        if value < 0:
            raise ConfigError(f"{limit} = {value}: it must be 0 or more.")


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


def _attacked(attack: Robustness | AttackSettings | Mapping[str, Any], model: Any, split: Any) -> Robustness:
    """Makes the adversarial examples, if they are not there."""
    made = attack if isinstance(attack, Robustness) else attack_model(in_float32(model), split, attack)
    check_sendable(made, split)
    return made
