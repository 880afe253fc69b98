"""Weight-only quantization while a checkpoint is read, through torchao (the extra `quantize`).

Packed are the linear layers of the blocks, those of experts among them. Embedding, head, norms,
biases and routers stay in the model's dtype, and so do activations.

    int8    one scale for each output, symmetric
    int4    a scale and a zero point for each group of 128, 64 or 32 inputs, two weights to a byte;
            in bfloat16 only
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dlmdecode.checks import require
from dlmdecode.models.config import Config
from dlmdecode.models.experts import Experts
from dlmdecode.models.transformer import Transformer

KINDS = ("int8", "int4")
GROUPS = (128, 64, 32)  # inputs that share a scale under int4: the largest that divides them
INT4_OUTPUTS = 16  # what the outputs of a layer must be a multiple of, on a CPU as on a GPU
PACKABLE = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Quantization:
    """Which weights of a model `load` packs, and how.

    Attributes:
        kind: "int8" or "int4".
        packed: names of the weights that are packed.
        left: names of linear layers' weights that int4 leaves as they are, because their inputs are
            no multiple of 32, or their outputs none of 16.
    """

    kind: str
    packed: frozenset[str]
    left: tuple[str, ...]


def check_quantize(quantize: str | None) -> None:
    """Refuse an unknown kind, and any without torchao."""
    if quantize is None:
        return
    require(quantize in KINDS, "quantize", quantize, "give 'int8' or 'int4', or None")
    fix = 'it needs torchao 0.18: pip install "dlmdecode[quantize]"'
    require(torchao_is_there(), "quantize", quantize, fix)


def torchao_is_there() -> bool:
    try:
        with quiet():
            import torchao.prototype.quantization.int4
            import torchao.quantization  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torchao logs while it is imported: of kernels that nothing here calls."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def plan_quantization(kind: str | None, model: Transformer) -> Quantization | None:
    """What is packed of a model on the meta device; `ValueError` where int4 fits no layer."""
    if kind is None:
        return None
    weights = linear_weights(model)
    packed = {name for name, one in weights.items() if kind == "int8" or group_of(one) is not None}
    fix = "no layer has a multiple of 32 inputs and of 16 outputs, as int4 needs: give 'int8'"
    require(len(packed) > 0, "quantize", kind, fix)
    return Quantization(kind, frozenset(packed), tuple(n for n in weights if n not in packed))


def check_kernels(kind: str, device: torch.device, dtypes: Iterable[torch.dtype]) -> None:
    """Refuse weights that torchao has no kernel for on a device, by `ValueError`."""
    found = set(dtypes)
    fix = f"it packs float32, bfloat16 and float16, not {', '.join(map(str, found))}: give a dtype"
    require(found <= set(PACKABLE), "quantize", kind, fix)
    if kind == "int8":
        return
    fix = f"torchao has int4 kernels for a CPU and for CUDA, none for {device.type}: give 'int8'"
    require(device.type in ("cpu", "cuda"), "quantize", kind, fix)
    fix = "its kernels take bfloat16 (a CPU's others are a hundred times slower): give dtype="
    require(found == {torch.bfloat16}, "quantize", kind, f"{fix}'bfloat16'")
    if device.type == "cuda":
        fix = f"{device} is older than compute capability 8.0: give 'int8'"
        require(torch.cuda.get_device_capability(device) >= (8, 0), "quantize", kind, fix)


def linear_weights(model: Transformer) -> dict[str, Tensor]:
    """Weights (N, K) of the blocks' linear layers by their names, without those of routers."""
    routers = {
        part
        for module in model.modules()
        if isinstance(module, Experts)
        for part in module.children()
        if isinstance(part, nn.Linear)
    }
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if name.startswith(model.layer_names)
        and isinstance(module, nn.Linear)
        and module not in routers
    }


def group_of(weight: Tensor) -> int | None:
    """How many inputs share a scale under int4; None where a weight (N, K) cannot be packed."""
    outputs, inputs = weight.shape
    fitting = [group for group in GROUPS if inputs % group == 0 and outputs % INT4_OUTPUTS == 0]
    return fitting[0] if fitting else None


def pack(weight: Tensor, kind: str) -> Tensor:
    """`weight` (N, K) as torchao keeps it on its device."""
    from torchao.quantization import quantize_

    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    quantize_(layer, torchao_config(kind, weight))
    return layer.weight


def pack_linears(module: nn.Module, kind: str, head: nn.Module | None) -> None:
    """Pack the linear layers of a foreign module that is loaded, all but its head, in place.

    Raises:
        ValueError: no layer fits, or torchao has no kernel for them.
    """
    layers = [one for one in module.modules() if type(one) is nn.Linear and one is not head]
    layers = [one for one in layers if kind == "int8" or group_of(one.weight) is not None]
    require(len(layers) > 0, "quantize", kind, f"{type(module).__name__} has no layer that fits it")
    check_kernels(kind, layers[0].weight.device, {one.weight.dtype for one in layers})
    for layer in layers:
        layer.weight = nn.Parameter(pack(layer.weight, kind), requires_grad=False)


def torchao_config(kind: str, weight: Tensor) -> Any:
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    if kind == "int8":
        return Int8WeightOnlyConfig(set_inductor_config=False)
    group = group_of(weight)
    if weight.device.type == "cpu":
        return PrototypeInt4WeightOnlyConfig(group_size=group, set_inductor_config=False)
    return Int4WeightOnlyConfig(
        group_size=group, set_inductor_config=False, int4_packing_format="tile_packed_to_4d"
    )


def refuse_packed(config: Config) -> None:
    """Refuse a checkpoint that holds packed weights, by the name of their method."""
    for field in ("quantization_config", "compression_config"):
        stated = config.get(field)
        method = stated.get("quant_method") if isinstance(stated, dict) else None
        by = f"by {method!r}" if method else "by a method that it does not name"
        fix = (
            f"weights that were packed {by} are not read: load the checkpoint they were made of, "
            'with quantize="int8" or "int4"'
        )
        config.require(stated is None, field, fix)
