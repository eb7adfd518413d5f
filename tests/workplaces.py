"""A folder with a workflow file, synthetic texts and a tiny random backbone."""

from __future__ import annotations

import random
from pathlib import Path

WORDS = {
    "business": "market bank price share stock trade profit loss money sale",
    "sport": "team game goal match player coach win score season cup",
    "tech": "phone computer software internet network mobile site data system user",
}
WORKFLOW = """
name = "tiny"
seed = 3
[data]
train = "articles.csv"
max_length = 24
[model]
backbone = "backbone"
pooling = "mean"
[[transfer.phases]]
train = "head"
epochs = 2
learning_rate = 1e-2
[[transfer.phases]]
train = "all"
epochs = 3
learning_rate = 3e-3
[train]
precision = "float32"
[evaluate]
num_bootstrap = 50
[export]
variants = ["float32", "text"]
"""


def write_articles(path: Path, header: str, *, rows: int) -> None:
    draw = random.Random(0)
    lines = [header]
    for number in range(rows):
        label = sorted(WORDS)[number % 3]
        words = draw.choices(WORDS[label].split(), k=5) + draw.choices(["the", "a", "of", "new", "old"], k=5)
        draw.shuffle(words)
        lines.append(f"{' '.join(words)},{label}")
    path.write_text("\n".join(lines) + "\n")


def make_workplace(folder: Path, vocabulary: list[str]) -> Path:
    """Writes ``workflow.toml``, 360 texts and a backbone into a folder, and returns it."""
    import keras
    import keras_hub

    write_articles(folder / "articles.csv", "text,label", rows=360)
    (folder / "workflow.toml").write_text(WORKFLOW)
    keras.utils.set_random_seed(1)
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=64,
    )
    backbone.save_to_preset(str(folder / "backbone"))
    keras_hub.tokenizers.BertTokenizer(list(vocabulary), lowercase=True).save_to_preset(
        str(folder / "backbone")
    )
    return folder
