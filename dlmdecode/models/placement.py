"""A model over several devices, layer by layer, through accelerate (the extra `placement`).

A part is what stays together: the embedding, each block, the final norm, the head. Hidden states
move to a block's device when it is called. Its keys and values are made there and kept there by
every cache; logits come back to the embedding's device, where the canvas is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from dlmdecode.checks import closest, require, shown
from dlmdecode.models.quantize import Quantization
from dlmdecode.models.transformer import Transformer

DeviceMap = str | Mapping[str, int | str | torch.device]
ROOM = 0.9  # of a device's free memory that weights may take; the rest is for what is computed


def check_device_map(device_map: DeviceMap | None, device: Any, max_memory: Any) -> None:
    """Refuse a map of the wrong kind, one beside a device, and any without accelerate."""
    if device_map is None:
        fix = "it goes with device_map='auto' only"
        require(max_memory is None, "max_memory", max_memory, fix)
        return
    fix = "give 'auto', or a dict of module names and their devices"
    known = device_map == "auto" or (isinstance(device_map, Mapping) and len(device_map) > 0)
    require(known, "device_map", device_map, fix)
    require(device is None, "device", device, "device_map says where the weights go; give one")
    fix = "a device_map that names every device needs no limits; leave it out"
    require(max_memory is None or device_map == "auto", "max_memory", max_memory, fix)
    fix = 'it needs accelerate: pip install "dlmdecode[placement]"'
    require(accelerate_is_there(), "device_map", device_map, fix)


def accelerate_is_there() -> bool:
    try:
        import accelerate  # noqa: F401
    except ImportError:
        return False
    return True


def parts_of(model: Transformer) -> dict[str, nn.Module]:
    """What stays on one device, by name, in the order of the model's modules."""
    blocks = set(model.blocks)
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{part}.") for part in found)
        if not inside and (module in blocks or next(module.parameters(False), None) is not None):
            found[name] = module
    return found


def spread(
    model: Transformer,
    dtypes: Mapping[str, torch.dtype],
    quantization: Quantization | None,
    max_memory: Mapping[int | str, int | str] | None = None,
) -> dict[str, Any]:
    """The map that "auto" means: as even as possible over the GPUs, whole parts on each.

    Args:
        model: on the meta device.
        dtypes: of its tensors, by name, before packing.
        max_memory: bytes, or texts such as "20GiB", for each GPU; None takes 90 % of what is free.
            A computer without GPUs has everything on its CPU.

    Raises:
        ValueError: the model does not fit. Nothing is left on the CPU or on a disk beside a GPU.
    """
    from accelerate.utils import CustomDtype, get_balanced_memory, infer_auto_device_map
    from accelerate.utils.modeling import get_max_memory

    given = None if max_memory is None else dict(max_memory)
    limits = {key: room for key, room in get_max_memory(given).items() if isinstance(key, int)}
    if not limits:
        fix = "it names no GPU by its number, such as {0: '20GiB'}"
        require(max_memory is None, "max_memory", max_memory, fix)
        return {"": "cpu"}
    if max_memory is None:
        limits = {key: int(ROOM * room) for key, room in limits.items()}
    kinds: dict[str, Any] = dict(dtypes)
    if quantization is not None:
        packed = torch.int8 if quantization.kind == "int8" else CustomDtype.INT4
        kinds |= dict.fromkeys(quantization.packed, packed)
    whole = sorted({type(block).__name__ for block in model.blocks})
    how = {"no_split_module_classes": whole, "special_dtypes": kinds}
    limits = get_balanced_memory(model, max_memory=limits, **how)
    found = infer_auto_device_map(model, max_memory=limits, **how)
    lost = [name for name, place in found.items() if not isinstance(place, int)]
    rooms = ", ".join(f"{room / 2**30:.2g} GiB on GPU {key}" for key, room in limits.items())
    fix = (
        f"{', '.join(lost[:3])}{' …' if len(lost) > 3 else ''} does not fit ({rooms}): give more "
        "GPUs or memory, dtype='bfloat16' or quantize="
    )
    require(not lost, "device_map", "auto", fix)
    return found


def places_of(
    model: Transformer, device_map: Mapping[str, int | str | torch.device]
) -> dict[str, torch.device]:
    """The device of each part, by the longest name in the map that its tensors' names begin with.

    Raises:
        ValueError: a name that is no module's, a tensor without a device, a part on two devices, or
            a CPU beside a GPU.
    """
    names = {name for name, _ in model.named_modules()} | set(model.state_dict())
    for name in device_map:
        fix = f"no module has the name {name!r}{closest(str(name), names)}"
        require(name in names, "device_map", dict(device_map), fix)
    places = {}
    for part, module in parts_of(model).items():
        own = {f"{part}.{name}" for name, _ in module.named_parameters()}
        found = {place_of(name, device_map) for name in own}
        fix = f"{part} has to be on one device"
        require(len(found) == 1, "device_map", dict(device_map), fix)
        (places[part],) = found
    kinds = {place.type for place in places.values()}
    fix = "part of the model would be on the CPU: give more GPUs, dtype='bfloat16' or quantize="
    require(kinds == {"cpu"} or "cpu" not in kinds, "device_map", dict(device_map), fix)
    return places


def place_of(name: str, device_map: Mapping[str, int | str | torch.device]) -> torch.device:
    """The device that a map has for the tensor `name`."""
    fitting = [key for key in device_map if key in ("", name) or name.startswith(f"{key}.")]
    require(len(fitting) > 0, "device_map", dict(device_map), f"it has no device for {name}")
    value = device_map[max(fitting, key=len)]
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"cuda:{value}"
    try:
        return torch.device(value)
    except (RuntimeError, TypeError) as error:
        fix = "give the number of a GPU, or a device such as 'cuda:0'; there is no offloading"
        raise ValueError(f"device_map[{max(fitting, key=len)!r}]={shown(value)}: {fix}") from error


def devices_of(model: Transformer, places: Mapping[str, torch.device]) -> dict[str, torch.device]:
    """The device of each tensor, by its name."""
    return {
        f"{part}.{name}": places[part]
        for part, module in parts_of(model).items()
        for name, _ in module.named_parameters()
    }


def attach(model: Transformer) -> None:
    """Make each part take its inputs to its device, and the head bring logits back."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    head = model.head_name.removesuffix(".weight")
    for name, module in parts_of(model).items():
        hook = AlignDevicesHook(model.device_map[name], io_same_device=name == head)
        add_hook_to_module(module, hook)
