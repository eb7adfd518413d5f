"""torchattacks' attacks in AutoAttack's settings, on a PyTorch copy of the referee's network; one JSON line.

Runs in a peer's environment, which has PyTorch and nothing of tfapp. Takes a folder that `attack_referee.py`
filled. torchattacks' own `AutoAttack` takes 10 steps where the paper takes 100, so its parts are called here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchattacks
from torch import nn

EPSILON = 8 / 255
Attack = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class ChannelsLast(torch.autograd.Function):
    """Lays images out as is fastest on CPUs, and gradients as torchattacks needs them."""

    @staticmethod
    def forward(context, values: torch.Tensor) -> torch.Tensor:
        return values.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(context, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.contiguous()


class Convolved(nn.Module):
    """A convolution and its norm, with the weights of the Keras layers of a name."""

    def __init__(self, weights: dict[str, np.ndarray], name: str, stride: int) -> None:
        super().__init__()
        kernel = torch.tensor(weights[f"{name}_conv.0"]).permute(3, 2, 0, 1)
        leaving, entering, size, _ = kernel.shape
        self.conv = nn.Conv2d(entering, leaving, size, stride, padding=size // 2, bias=False)
        self.norm = nn.BatchNorm2d(leaving, eps=1e-5)
        norm = (self.norm.weight, self.norm.bias, self.norm.running_mean, self.norm.running_var)
        with torch.no_grad():
            self.conv.weight.copy_(kernel)
            for place, value in enumerate(norm):
                value.copy_(torch.tensor(weights[f"{name}_norm.{place}"]))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(values))


class Block(nn.Module):
    def __init__(self, weights: dict[str, np.ndarray], name: str) -> None:
        super().__init__()
        shortcut = f"{name}_0_conv.0" in weights
        stride = 2 if shortcut else 1
        self.first = Convolved(weights, f"{name}_1", stride)
        self.second = Convolved(weights, f"{name}_2", 1)
        self.shortcut = Convolved(weights, f"{name}_0", stride) if shortcut else nn.Identity()

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(values))) + self.shortcut(values))


class Network(nn.Module):
    """The referee's network, for pixels 0..1."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        names = sorted({key.rsplit("_", 2)[0] for key in weights if key.startswith("stage")})
        self.stem = Convolved(weights, "stem", 1)
        self.blocks = nn.Sequential(*(Block(weights, name) for name in names))
        self.head = nn.Linear(*weights["head.0"].shape)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor(weights["head.0"]).T)
            self.head.bias.copy_(torch.tensor(weights["head.1"]))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        values = torch.relu(self.stem(ChannelsLast.apply(pixels * 2.0 - 1.0)))
        return self.head(self.blocks(values).mean((2, 3)))


def make_attacks(model: nn.Module, options: argparse.Namespace) -> dict[str, Attack]:
    """The attacks of AutoAttack in its order and settings."""
    shared = {"eps": EPSILON, "norm": "Linf", "seed": options.seed}
    steps = {"steps": options.num_steps, "n_restarts": 1}
    return {
        "apgd": torchattacks.APGD(model, **shared, **steps, loss="ce"),
        "apgd_t": torchattacks.APGDT(model, **shared, **steps, n_classes=10),
        "fab": torchattacks.FAB(model, **shared, **steps, multi_targeted=True, n_classes=10),
        "square": torchattacks.Square(
            model, **shared, n_queries=options.num_queries, n_restarts=1, resc_schedule=False
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num-steps", type=int, default=100)
    parser.add_argument("--num-queries", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--attacks", nargs="+", default=["apgd", "apgd_t", "fab", "square"])
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    with np.load(options.folder / "weights.npz") as arrays:
        model = Network(dict(arrays)).eval().to(memory_format=torch.channels_last)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with np.load(options.folder / "images.npz") as arrays:
        pixels, labels, expected = arrays["images"], arrays["labels"], arrays["logits"]
    images = torch.tensor(pixels.transpose(0, 3, 1, 2) / np.float32(255.0)).contiguous()
    truth = torch.tensor(labels, dtype=torch.long)
    with torch.no_grad():
        difference = float(np.abs(model(images[: len(expected)]).numpy() - expected).max())

    def standing(adversarial: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            parts = [model(part).argmax(1) for part in adversarial.split(options.batch_size)]
        return torch.cat(parts) == truth

    attacks = make_attacks(model, options)
    attacks = {name: attacks[name] for name in options.attacks}

    def run(attack: Attack, rows: torch.Tensor) -> tuple[torch.Tensor, float]:
        """Attacks some rows in batches; says which of all rows stand after it, and the seconds."""
        began = time.perf_counter()
        found = images.clone()
        for part in rows.split(options.batch_size):
            if len(part):
                found[part] = attack(images[part], truth[part]).detach()
        assert (found - images).abs().max() <= EPSILON + 1e-6
        return standing(found), time.perf_counter() - began

    clean = standing(images)
    alone, after, still = {}, {}, clean
    for name, attack in attacks.items():
        stand, seconds = run(attack, clean.nonzero()[:, 0])
        alone[name] = {"accuracy": float((clean & stand).double().mean()), "seconds": seconds}
    for name, attack in attacks.items():
        stand, seconds = run(attack, still.nonzero()[:, 0])
        still = still & stand
        after[name] = {"accuracy": float(still.double().mean()), "seconds": seconds}
    answer = {
        "who": "torchattacks",
        "clean": float(clean.double().mean()),
        "alone": alone,
        "after": after,
        "logits_difference": difference,
        "versions": {"torch": torch.__version__, "torchattacks": torchattacks.__version__},
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
