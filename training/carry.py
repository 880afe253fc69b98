"""Carry what a model has learned since over to one that began with its weights.

    python -m training.carry --onto tiny-block --before runs/earlier/tiny --after tiny \
        --share 0.65 --output runs/models/tiny-block

A share of the difference between two checkpoints of a model is added to the weights of its
descendant (task arithmetic, arXiv 2212.04089). Training goes on from there.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dlmdecode.models.loading import find_folder
from dlmdecode.models.weights import tensors, weight_files
from training.block import qwen_name


def weights_of(checkpoint: str) -> dict[str, Tensor]:
    """Float32 weights by name; those of a LLaDA by the names of an SDAR."""
    given = tensors(weight_files(find_folder(checkpoint)), torch.device("cpu"))
    return {qwen_name(name): weight.float() for name, weight in given}


def carried(
    onto: dict[str, Tensor], before: dict[str, Tensor], after: dict[str, Tensor], share: float
) -> dict[str, Tensor]:
    """`onto` and a share of what was learned; weights that only it has stay.

    Raises:
        ValueError: the two checkpoints are not of one model, or not of an ancestor.
    """
    first, second, whole = ({(n, w.shape) for n, w in of.items()} for of in (before, after, onto))
    if first != second or not first <= whole:
        raise ValueError("--before and --after need the weights of one model, which --onto has too")
    learned = {name: share * (after[name] - before[name]) for name in before}
    return {name: weight + learned.get(name, 0.0) for name, weight in onto.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--onto", required=True, help="the descendant, which the output is like")
    add("--before", required=True, help="the weights it began with")
    add("--after", required=True, help="what became of them")
    add("--share", type=float, default=0.65, help="of the difference")
    add("--output", type=Path, required=True)
    arguments = parser.parse_args()
    named = arguments.onto, arguments.before, arguments.after
    onto, before, after = map(weights_of, named)
    shutil.copytree(find_folder(arguments.onto), arguments.output, dirs_exist_ok=True)
    weights = carried(onto, before, after, arguments.share)
    weights = {name: weight.bfloat16().contiguous() for name, weight in weights.items()}
    save_file(weights, arguments.output / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
