"""A static page that runs a release's .tflite files in a browser."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from tfapp.assets import ASSETS, read_pinned
from tfapp.errors import ConfigError

_SOURCES = Path(__file__).with_name("web")
_RUNTIME = "dist/index.js"
_BUILDS = ("wasm/litert_wasm_internal", "wasm/litert_wasm_compat_internal")


def export_web_page(
    model: Any, directory: str | Path, *, name: str, runtime: str | Path, variants: Sequence[str]
) -> Path:
    """Writes ``edge/web/``: a page that classifies what is typed or dropped, and checks itself.

    It reads the models, the vocabulary and the golden vectors from the folder above, so any server of static
    files shows it that serves ``edge/``. It needs no other place, no thread and no special header. The
    WebAssembly of the runtime lies compressed in it; a browser loads one of its two builds, the faster one
    where it knows relaxed SIMD.

    Args:
        model: A classifier that carries its preprocessor.
        directory: The release's folder, with ``edge/`` in it.
        name: What the page is called.
        runtime: The folder of the asset ``litertjs``; each file is checked again as it is copied.
        variants: The variants that there are; those that a browser can run are offered.

    Returns:
        The folder of the page.

    Raises:
        ConfigError: When a browser can run none of them.
        AssetError: When a file of the runtime is not the pinned one.
    """
    edge = Path(directory) / "edge"
    page = edge / "web"
    offered = [variant for variant in model.preprocessor.web_variants if variant in variants]
    if not offered:
        raise ConfigError(
            f"the page needs one of the variants {', '.join(model.preprocessor.web_variants)}, and there is "
            f"none of them among {', '.join(variants)}."
        )
    settings = {
        "name": name,
        "feature": model.preprocessor.feature_name,
        "classes": list(model.classes),
        "variants": [_entry(edge / f"model-{variant}.tflite", variant) for variant in offered],
        "preprocessor": model.preprocessor.web_settings(),
    }
    shutil.copytree(_SOURCES, page)
    content = json.dumps(settings, ensure_ascii=False, separators=(",", ":"))
    (page / "settings.json").write_text(content, encoding="utf-8")
    _copy_runtime(Path(runtime), page / "litert")
    return page


def _entry(path: Path, variant: str) -> dict[str, Any]:
    """Describes one file: for integers also what one step of its answer is worth, and which one is 0."""
    step, zero = _answer_scale(path.read_bytes())
    return {
        "variant": variant,
        "path": path.name,
        "bytes": path.stat().st_size,
        **({"step": step, "zero": zero} if step else {}),
    }


def _answer_scale(content: bytes) -> tuple[float, int]:
    graph = schema.Model.GetRootAs(content, 0).Subgraphs(0)
    answer = graph.Tensors(graph.Outputs(0))
    if answer.Type() == schema.TensorType.FLOAT32:
        return 0.0, 0
    quantization = answer.Quantization()
    return float(quantization.Scale(0)), int(quantization.ZeroPoint(0))


def _copy_runtime(source: Path, target: Path) -> None:
    asset = ASSETS["litertjs"]
    for name in (_RUNTIME, *(f"{build}.js" for build in _BUILDS)):
        (target / Path(name).name).write_bytes(read_pinned(asset, source, name))
    for build in _BUILDS:
        content = read_pinned(asset, source, f"{build}.wasm")
        # Without a time, equal contents are equal files.
        packed = gzip.compress(content, 6, mtime=0)
        (target / f"{Path(build).name}.wasm.gz").write_bytes(packed)
