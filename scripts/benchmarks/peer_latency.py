"""Answers one sentence at a time with transformers or ONNX Runtime; runs inside the peer's own environment.

`prepare` fine-tunes BertForSequenceClassification for one epoch, saves it, exports it to ONNX, fuses the
graph with ONNX Runtime's optimizer and quantises it dynamically to int8. `serve` is a worker of `latency.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from importlib import metadata
from pathlib import Path

import turns


def prepare(options: argparse.Namespace) -> None:
    import numpy as np
    import onnx
    import torch
    import transformers
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model
    from peer_transformers import collate, encode, epoch_batches, make_optimizer, read_rows, train_step

    transformers.set_seed(0)
    texts, names = read_rows(options.train)
    texts, names = texts[: options.limit], names[: options.limit]
    classes = sorted(set(names))
    labels = np.array([classes.index(name) for name in names])
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    token_ids = encode(tokenizer, texts, options.max_length)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        options.model,
        num_labels=len(classes),
        id2label=dict(enumerate(classes)),
        label2id={name: index for index, name in enumerate(classes)},
    )
    generator = torch.Generator().manual_seed(0)
    batches = epoch_batches([len(row) for row in token_ids], 32, group_by_length=True, generator=generator)
    optimizer = make_optimizer(model, 5e-5)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, len(batches) // 10, len(batches))
    model.train()
    for rows in batches:
        train_step(model, optimizer, schedule, collate(token_ids, labels, rows), "bfloat16")
    model.eval()
    model.save_pretrained(options.folder)
    tokenizer.model_max_length = options.max_length
    tokenizer.save_pretrained(options.folder)
    shutil.copy(options.model / "vocab.txt", options.folder)

    example = tokenizer("an example sentence", return_tensors="pt")
    wanted = ("input_ids", "attention_mask", "token_type_ids")
    plain = model.to(torch.float32)
    plain.set_attn_implementation("eager")  # the pattern that ONNX Runtime's optimizer knows
    torch.onnx.export(
        plain,
        tuple(example[name] for name in wanted),
        options.folder / "model.onnx",
        input_names=list(wanted),
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "length"} for name in wanted} | {"logits": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    settings = model.config
    fused = optimize_model(
        str(options.folder / "model.onnx"),
        model_type="bert",
        num_heads=settings.num_attention_heads,
        hidden_size=settings.hidden_size,
    )
    fused.save_model_to_file(str(options.folder / "fused.onnx"))
    quantize_dynamic(
        options.folder / "fused.onnx",
        options.folder / "int8.onnx",
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # fused operators tell no type
    )
    print(json.dumps({"fused": fused.get_fused_operator_statistics()}))


def make_transformers(folder: Path):
    """The pipeline as a user makes it."""
    import torch
    from transformers import pipeline

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    classify = pipeline("text-classification", model=str(folder), device="cpu")
    return lambda text: classify(text)[0]["label"], ("torch", "transformers")


def make_torch(folder: Path):
    """Tokenizer and model without the pipeline around them."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    names = model.config.id2label

    def answer(text: str) -> str:
        with torch.inference_mode():
            inputs = tokenizer(text, truncation=True, return_tensors="pt")
            return names[int(model(**inputs).logits.argmax(-1))]

    return answer, ("torch", "transformers")


def make_onnxruntime(folder: Path, file: str = "int8.onnx"):
    """ONNX Runtime behind the fast tokenizer, without transformers or torch."""
    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    onnxruntime.set_default_logger_severity(3)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / file, settings, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    config = json.loads((folder / "config.json").read_text())
    limit = json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"]
    tokenizer.enable_truncation(limit)
    names = [config["id2label"][str(index)] for index in range(len(config["id2label"]))]

    def answer(text: str) -> str:
        encoded = tokenizer.encode(text)
        inputs = {
            "input_ids": np.array([encoded.ids], np.int64),
            "attention_mask": np.array([encoded.attention_mask], np.int64),
            "token_type_ids": np.array([encoded.type_ids], np.int64),
        }
        return names[int(session.run(None, inputs)[0].argmax())]

    return answer, ("onnxruntime", "tokenizers")


def make_onnxruntime_float32(folder: Path):
    """The same, with the graph before quantisation."""
    return make_onnxruntime(folder, "fused.onnx")


CONTESTANTS = {
    "transformers": make_transformers,
    "torch": make_torch,
    "onnxruntime": make_onnxruntime,
    "onnxruntime-float32": make_onnxruntime_float32,
}


def serve(options: argparse.Namespace) -> None:
    answer, packages = CONTESTANTS[options.contestant](options.folder)

    def measure(texts: list[str], warmup: int) -> dict[str, list]:
        for text in texts[:warmup]:
            answer(text)
        seconds, labels = [], []
        for text in texts:
            started = time.perf_counter()
            label = answer(text)
            seconds.append(time.perf_counter() - started)
            labels.append(label)
        return {"seconds": seconds, "labels": labels}

    turns.work({"versions": {name: metadata.version(name) for name in packages}}, measure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    preparing = commands.add_parser("prepare")
    preparing.add_argument("--model", type=Path, required=True, help="folder of the pretrained weights")
    preparing.add_argument("--train", type=Path, required=True, help="CSV with the columns text and label")
    preparing.add_argument("--limit", type=int, help="train on the first rows only")
    preparing.add_argument("--max-length", type=int, default=128)
    preparing.add_argument("--folder", type=Path, required=True, help="where the model files are written")
    preparing.set_defaults(run=prepare)
    serving = commands.add_parser("serve")
    serving.add_argument("--folder", type=Path, required=True, help="what prepare wrote")
    serving.add_argument("--contestant", choices=CONTESTANTS, required=True)
    serving.set_defaults(run=serve)
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    options.run(options)


if __name__ == "__main__":
    main()
