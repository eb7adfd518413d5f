"""Whether a release gets a page for browsers, and the runtime that such a page brings along."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfapp.assets import ASSETS, fetch, find_cached
from tfapp.errors import ConfigError

_logger = logging.getLogger("tfapp")


def page_runtime(web: bool | None, model: Any, variants: Sequence[str]) -> Path | None:
    """Finds the runtime of the page that a release gets.

    Args:
        web: Whether there is a page; None for one where its runtime is in the cache, without asking the
            network for it.
        model: A classifier that carries its preprocessor.
        variants: The artifacts that are written.

    Returns:
        The runtime's folder; None for no page.

    Raises:
        ConfigError: When a page is wanted and a browser can run none of the variants.
        AssetError: When a page is wanted and its runtime cannot be fetched.
    """
    if web is False:
        return None
    asset, runnable = ASSETS["litertjs"], model.preprocessor.web_variants
    if not set(runnable) & set(variants):
        if web:
            raise ConfigError(
                f"web = true: a browser can run none of {', '.join(variants)}; add one of "
                f"{', '.join(runnable)}, or leave web out."
            )
        return None
    if web:
        return fetch(asset)
    folder = find_cached(asset)
    if folder is None:
        _logger.info(
            "export: edge/web, the page that runs the model in a browser, is left out: its runtime is not "
            "at hand; `tfapp presets fetch %s` adds it (%.1f MB, licence: %s)",
            asset.name,
            asset.megabytes,
            asset.licence,
        )
    return folder
