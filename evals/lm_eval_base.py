"""The harness's data parallelism: processes that each hold the model and share the requests.

torchrun --nproc-per-node 8 -m dlmdecode.evals.lm_eval run --model dlmdecode …
"""

from __future__ import annotations

import atexit
import os
from typing import Any

import torch
import torch.distributed as dist
from lm_eval.api.model import LM
from torch import Tensor

from dlmdecode.evals.encoding import Encoder
from dlmdecode.likelihood import Rows


class HarnessModel(LM):
    """Joins the processes that `torchrun` or `accelerate launch` started, if any did.

    Attributes:
        model: a `Denoiser` with a tokenizer.
        encoder: its texts as ids.
        rows: how many rows a call of the model has.
    """

    model: Any
    encoder: Encoder
    rows: Rows

    def __init__(self) -> None:
        super().__init__()
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            if not dist.is_initialized():
                dist.init_process_group()
                atexit.register(dist.destroy_process_group)  # its threads outlive no interpreter
            self._rank, self._world_size = dist.get_rank(), dist.get_world_size()

    def own_device(self, device: str | None) -> str | None:
        """The device of this process: where none is asked for, a GPU each.

        The harness says cuda:0 where its user says nothing, whatever the machine has.
        """
        if device not in (None, "cuda", "cuda:0"):
            return device
        if not torch.cuda.is_available():
            return None if device == "cuda:0" else device
        if self.world_size > 1:
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
            torch.cuda.set_device(device)
        return device

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The scalars of all processes, (world_size,)."""
        if self.world_size == 1:
            return tensor
        parts = [torch.zeros_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(parts, tensor)
        return torch.stack(parts)

    def gather_object(self, obj: Any, dst: int = 0) -> list[Any] | None:
        """What all processes have, in the process `dst`; None elsewhere."""
        if self.world_size == 1:
            return [obj]
        parts: list[Any] | None = [None] * self.world_size if self.rank == dst else None
        dist.gather_object(obj, parts, dst)
        return parts

    def barrier(self) -> None:
        if self.world_size > 1:
            dist.barrier()

    @property
    def tokenizer_name(self) -> str:
        """The name under which the harness keeps built requests."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template's source; a name chooses among several."""
        return self.encoder.choose_template(chat_template)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as text."""
        return self.encoder.render(chat_history, add_generation_prompt)

    @property
    def tokenizer(self) -> Any:
        return self.model.tokenizer

    @property
    def eot_token_id(self) -> int:
        return self.model.eos_ids[0]

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def batch_sizes(self) -> dict[str, int]:
        """What `batch_size=auto` came to."""
        return {"auto": self.rows.size} if self.rows.adapts else {}
