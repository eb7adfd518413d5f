"""Fine-tune a ResNet-50 of keras.applications' layout in PyTorch: frozen batch normalisation, AdamW.

Runs in a peer's environment, which has PyTorch and nothing of tfapp. Weights are random: only speed is
measured. Activations are laid out channels last, which is the faster way on CPUs. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time

import numpy as np
import torch
from torch import nn


class Block(nn.Module):
    """A bottleneck block with its stride, as keras.applications has it, on the first convolution."""

    def __init__(self, entering: int, width: int, stride: int) -> None:
        super().__init__()
        leaving = 4 * width
        self.path = nn.Sequential(
            nn.Conv2d(entering, width, 1, stride),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, leaving, 1),
            nn.BatchNorm2d(leaving),
        )
        self.shortcut = nn.Identity()
        if entering != leaving:
            self.shortcut = nn.Sequential(nn.Conv2d(entering, leaving, 1, stride), nn.BatchNorm2d(leaving))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.path(values) + self.shortcut(values))


def resnet50(classes: int) -> nn.Module:
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, padding=3),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, padding=1),
    ]
    entering = 64
    for stage, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        for number in range(blocks):
            layers.append(Block(entering, width, 2 if stage and not number else 1))
            entering = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(entering, classes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--warmup-steps", type=int, default=2, help="not counted")
    parser.add_argument("--steps", type=int, default=6, help="counted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    model = resnet50(10).to(memory_format=torch.channels_last).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
            module.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.01, fused=True)
    size = options.image_size
    pixels = np.random.default_rng(options.seed).normal(size=(options.batch_size, 3, size, size))
    inputs = torch.tensor(pixels, dtype=torch.float32).to(memory_format=torch.channels_last)
    labels = torch.arange(options.batch_size) % 10
    autocast = contextlib.nullcontext
    if options.precision == "bfloat16":

        def autocast():
            return torch.autocast("cpu", dtype=torch.bfloat16)

    started = 0.0
    for step in range(options.warmup_steps + options.steps):
        if step == options.warmup_steps:
            started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with autocast():
            logits = model(inputs)
        nn.functional.cross_entropy(logits.float(), labels).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    seconds = time.perf_counter() - started
    answer = {
        "peer": "torch",
        "images_per_second": options.steps * options.batch_size / seconds,
        "seconds": seconds,
        "versions": {"torch": torch.__version__},
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
