"""Turn the best averaged weights of a run into a checkpoint folder, weights in bfloat16.

    python -m training.export --config training/configs/tiny.json --run runs/tiny \
        --output dlmdecode/models/tiny

The log and its learning curve go to training/results. The model card beside the weights is written
by hand.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from training.ar import NextToken


def export(config: dict[str, Any], run: Path, output: Path) -> None:
    """Write config, weights and tokenizer; the dtype to compute in stays float32."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(config["tokenizer"])
    tokenizer.save_pretrained(output)
    weights = load_file(run / "best.safetensors")
    if "model_type" in config["model"]:
        weights = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
        save_file(weights, output / "model.safetensors", metadata={"format": "pt"})
        ids = {
            "mask_token_id": tokenizer.mask_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        written = config["model"] | ids
    else:
        model = NextToken(config, tokenizer).build()
        model.load_state_dict(weights)
        model.to(torch.bfloat16).save_pretrained(output)
        written = json.loads((output / "config.json").read_text()) | {"dtype": "float32"}
    (output / "config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def learning_curve(log: Path, image: Path) -> None:
    """Loss, and accuracy on the calibration split, over training minutes."""
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    minutes = [entry["minutes"] for entry in entries]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    left.semilogy(minutes, [entry["loss"] for entry in entries])
    left.set(xlabel="minutes", ylabel="loss per answer token")
    for key, label in {"accuracy": "word problems", "functions": "functions"}.items():
        right.plot(minutes, [entry[key] for entry in entries], marker=".", label=label)
    right.legend(loc="lower right")
    right.set(xlabel="minutes", ylabel="accuracy, calibration split", ylim=(0, 1.03))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(image, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    export(json.loads(arguments.config.read_text()), arguments.run, arguments.output)
    results = Path("training/results")
    results.mkdir(exist_ok=True)
    shutil.copy(arguments.run / "log.jsonl", results / f"{arguments.output.name}.jsonl")
    learning_curve(arguments.run / "log.jsonl", results / f"{arguments.output.name}.png")


if __name__ == "__main__":
    main()
