"""Fine-tune with transformers + PyTorch, as a peer to compare with; runs inside the peer's own environment.

The loop does what `transformers.Trainer` does (same model, sampler, padding, autocast, AdamW groups, schedule
and clipping) without its bookkeeping, to give the peer its best shape;
`--mode trainer` times the Trainer itself.

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import get_length_grouped_indices


def read_rows(path: Path) -> tuple[list[str], list[str]]:
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    return frame["text"].tolist(), frame["label"].tolist()


def encode(tokenizer, texts: list[str], max_length: int) -> list[list[int]]:
    return tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]


def collate(token_ids: list[list[int]], labels: np.ndarray, rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Pads to the longest row of the batch."""
    lengths = np.array([len(token_ids[row]) for row in rows])
    padded = np.zeros((len(rows), lengths.max()), np.int64)
    for position, row in enumerate(rows):
        padded[position, : lengths[position]] = token_ids[row]
    mask = (np.arange(padded.shape[1]) < lengths[:, None]).astype(np.int64)
    arrays = {"input_ids": padded, "attention_mask": mask, "labels": labels[rows]}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def epoch_batches(
    lengths: list[int], batch_size: int, *, group_by_length: bool, generator: torch.Generator
) -> list[np.ndarray]:
    if group_by_length:
        order = get_length_grouped_indices(lengths, batch_size, generator=generator)
    else:
        order = torch.randperm(len(lengths), generator=generator).tolist()
    return [np.array(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]


def sample_batches(batches: list[np.ndarray], lengths: list[int], count: int) -> list[np.ndarray]:
    """Takes evenly spaced batches by padded length, so that few steps stand for the whole epoch."""
    full = [batch for batch in batches if len(batch) == len(batches[0])]
    full.sort(key=lambda batch: max(lengths[row] for row in batch))
    positions = (np.arange(count) + 0.5) / count * len(full)
    chosen = [full[int(position)] for position in positions]
    return [chosen[index] for index in np.random.default_rng(0).permutation(count)]


def make_optimizer(model, learning_rate: float) -> torch.optim.Optimizer:
    """The Trainer's default: PyTorch's fused AdamW, weight decay on everything but norms and biases."""
    plain = [p for name, p in model.named_parameters() if name.endswith(".bias") or "LayerNorm" in name]
    plain_ids = {id(p) for p in plain}
    decayed = [p for p in model.parameters() if id(p) not in plain_ids]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, fused=True)


def autocast(precision: str):
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast("cpu", dtype=torch.bfloat16)


def train_step(model, optimizer, schedule, batch, precision: str) -> None:
    with autocast(precision):
        loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)


def predict(model, token_ids: list[list[int]], precision: str, batch_size: int = 128) -> np.ndarray:
    model.eval()
    order = np.argsort([len(row) for row in token_ids], kind="stable")
    predicted = np.empty(len(token_ids), np.int64)
    nothing = np.zeros(len(token_ids), np.int64)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = collate(token_ids, nothing, rows)
        del batch["labels"]
        with torch.inference_mode(), autocast(precision):
            predicted[rows] = model(**batch).logits.argmax(-1).numpy()
    return predicted


def run_training(options, model, token_ids, labels, test_ids, test_labels) -> dict:
    generator = torch.Generator().manual_seed(options.seed)
    lengths = [len(row) for row in token_ids]
    steps = options.epochs * math.ceil(len(token_ids) / options.batch_size)
    optimizer = make_optimizer(model, options.learning_rate)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(0.1 * steps), steps)
    started = time.perf_counter()
    for _ in range(options.epochs):
        model.train()
        for rows in epoch_batches(
            lengths, options.batch_size, group_by_length=options.group_by_length, generator=generator
        ):
            train_step(model, optimizer, schedule, collate(token_ids, labels, rows), options.precision)
    seconds = time.perf_counter() - started
    accuracy = float((predict(model, test_ids, options.precision) == test_labels).mean())
    return {"accuracy": accuracy, "seconds": seconds, "rows": len(token_ids), "test_rows": len(test_ids)}


def run_speed(options, model, token_ids, labels) -> dict:
    generator = torch.Generator().manual_seed(options.seed)
    lengths = [len(row) for row in token_ids]
    optimizer = make_optimizer(model, options.learning_rate)
    schedule = get_linear_schedule_with_warmup(optimizer, 10, 1000)
    every = epoch_batches(
        lengths, options.batch_size, group_by_length=options.group_by_length, generator=generator
    )
    chosen = sample_batches(every, lengths, options.steps)
    model.train()
    for rows in sample_batches(every, lengths, options.warmup_steps):
        train_step(model, optimizer, schedule, collate(token_ids, labels, rows), options.precision)
    started = time.perf_counter()
    for rows in chosen:
        train_step(model, optimizer, schedule, collate(token_ids, labels, rows), options.precision)
    seconds = time.perf_counter() - started
    examples = sum(len(rows) for rows in chosen)
    real = sum(lengths[row] for rows in chosen for row in rows)
    padded = sum(len(rows) * max(lengths[row] for row in rows) for rows in chosen)
    return {
        "examples_per_second": examples / seconds,
        "tokens_per_example": real / examples,
        "padding_share": 1 - real / padded,
        "seconds": seconds,
        "steps": options.steps,
    }


def run_trainer(options, model, token_ids, labels) -> dict:
    """Times the Trainer itself over the same number of steps."""
    from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

    rows = [{"input_ids": ids, "labels": int(label)} for ids, label in zip(token_ids, labels, strict=True)]

    class Clock(TrainerCallback):
        started = ended = 0.0

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == options.warmup_steps:
                self.started = time.perf_counter()
            self.ended = time.perf_counter()

    clock = Clock()
    arguments = TrainingArguments(
        output_dir=options.scratch,
        max_steps=options.warmup_steps + options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        weight_decay=0.01,
        bf16=options.precision == "bfloat16",
        seed=options.seed,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    collator = DataCollatorWithPadding(AutoTokenizer.from_pretrained(options.model))
    Trainer(
        model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[clock]
    ).train()
    seconds = clock.ended - clock.started
    return {"examples_per_second": options.steps * options.batch_size / seconds, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=("train", "speed", "trainer"), required=True)
    parser.add_argument("--model", required=True, help="folder of the pretrained model")
    parser.add_argument("--train", type=Path, required=True, help="CSV with the columns text and label")
    parser.add_argument("--test", type=Path, help="CSV with the same columns; needed by --mode train")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--group-by-length", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup-steps", type=int, default=5, help="not counted; --mode speed and trainer")
    parser.add_argument("--steps", type=int, default=60, help="counted; --mode speed and trainer")
    parser.add_argument("--limit", type=int, help="use only the first rows of each file")
    parser.add_argument("--scratch", default="trainer-scratch", help="folder for --mode trainer")
    options = parser.parse_args()
    if options.mode == "train" and options.test is None:
        parser.error("--mode train needs --test")

    torch.set_num_threads(options.threads)
    transformers.set_seed(options.seed)
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    texts, names = read_rows(options.train)
    classes = sorted(set(names))
    labels = np.array([classes.index(name) for name in names])
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    token_ids = encode(tokenizer, texts, options.max_length)[: options.limit]
    labels = labels[: options.limit]
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=len(classes))

    if options.mode == "speed":
        result = run_speed(options, model, token_ids, labels)
    elif options.mode == "trainer":
        result = run_trainer(options, model, token_ids, labels)
    else:
        test_texts, test_names = read_rows(options.test)
        test_ids = encode(tokenizer, test_texts, options.max_length)[: options.limit]
        test_labels = np.array([classes.index(name) for name in test_names])[: options.limit]
        result = run_training(options, model, token_ids, labels, test_ids, test_labels)
    about = {
        "peer": "transformers",
        "mode": options.mode,
        "precision": options.precision,
        "group_by_length": options.group_by_length,
        "seed": options.seed,
        "attention": model.config._attn_implementation,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    print(json.dumps(about | result), flush=True)


if __name__ == "__main__":
    main()
