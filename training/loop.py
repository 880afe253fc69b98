"""One training loop for every embedded model: schedule, averaged weights, checkpoints, log, export.

An objective has `build() -> module`, `loss(module, batch, step) -> scalar` and
`answer(module, questions) -> token ids`. The loop stops after `steps` steps or `minutes` minutes,
whichever comes first, and the learning rate falls linearly to zero at that point. A run continues
from its last checkpoint when it is started again. What is exported are the averaged weights: those
of the end, where the learning rate is zero, or the best so far of a run that did not get there.

Several processes train one model (`torchrun --nproc-per-node 2 -m -- training.dlm …`): each takes
steps of its own on texts of its own, and every `AGREE` steps all go on from the mean of their
weights (local SGD, arXiv 1805.09767). How long such a run is must be said in steps.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from dlmdecode.evals.arithmetic import final_answer, problem
from dlmdecode.evals.functions import exercise
from training.data import Batches
from training.muon import Muon

AGREE = 16  # steps that each of several processes takes by itself


class MixedLinear(nn.Linear):
    """A linear layer that multiplies in bfloat16 and keeps float32 outside.

    On CPUs with bfloat16 units this is 3 to 4 times faster; attention in bfloat16 would be slower.
    """

    def forward(self, x: Tensor) -> Tensor:
        product = F.linear(x.bfloat16(), self.weight.bfloat16()).to(x.dtype)
        return product if self.bias is None else product + self.bias


def mixed_precision(model: nn.Module) -> nn.Module:
    """The model with such layers, where the CPU has bfloat16 units."""
    units = torch.cpu.get_capabilities()
    if not (units.get("amx_bf16") or units.get("avx512_bf16")):
        return model
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = MixedLinear
    return model


def compiled(model: nn.Module, **options: Any) -> nn.Module:
    """The layers compiled in place, for texts of any length; names of weights stay."""
    for name, module in model.named_modules():
        if re.fullmatch(r"(.*\.)?(blocks|layers)\.\d+", name):
            module.compile(dynamic=True, **options)
    return model


def optimizers(model: nn.Module, config: dict[str, Any]) -> list[torch.optim.Optimizer]:
    """Muon (orthogonal updates) for the matrices of the layers, AdamW for the rest."""
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        inner = weight.dim() == 2 and ("blocks" in name or "layers" in name)
        (matrices if inner and config["muon"] else rest).append(weight)
    adam = torch.optim.AdamW(
        rest, lr=config["lr"], betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    if not matrices:
        return [adam]
    return [adam, Muon(matrices, lr=config["lr"], weight_decay=0.01)]


class Run:
    """A run in a folder: `log.jsonl`, `state.safetensors` with `state.json`, `best.safetensors`.

    On a GPU the layers are compiled and run under bfloat16 autocast; `compile` in the configuration
    compiles them on a CPU too, which needs a C++ compiler.
    """

    def __init__(self, objective: Any, config: dict[str, Any], tokenizer: Any, folder: Path):
        self.objective, self.config, self.tokenizer = objective, config, tokenizer
        self.folder = folder
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model = objective.build().to(self.device)
        self.model = mixed_precision(model) if self.device == "cpu" else model
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        if self.device == "cuda" or config.get("compile"):
            compiled(self.model)
        self.optimizers = optimizers(self.model, config)
        self.batches = Batches(
            tokenizer, config["batch"], config["seed"], curriculum=config["curriculum"]
        )
        self.step, self.seconds, self.best = 0, 0.0, -1.0
        self.alone = not dist.is_initialized()
        self.folder.mkdir(parents=True, exist_ok=True)
        if (folder / "state.json").is_file():
            self.resume()

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        minutes = self.config.get("minutes")
        by_time = self.seconds / (60 * minutes) if minutes else 0.0
        return min(1.0, max(self.step / self.config["steps"], by_time))

    def rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.config["warmup"])
        return self.config["lr"] * warm * (1 - self.progress)

    def train_step(self) -> float:
        started = time.perf_counter()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = self.rate()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            loss = self.objective.loss(self.model, self.batches[self.step], self.step)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        decay = min(self.config["average"], (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.model.parameters()), 1 - decay
        )
        self.step += 1
        self.seconds += time.perf_counter() - started
        return loss.item()

    @torch.inference_mode()
    def answers(self, questions: list[str]) -> list[str]:
        """What the averaged weights write."""
        asked, written = self.tokenizer(questions).input_ids, []
        for first in range(0, len(asked), 50):
            written += self.objective.answer(self.average, asked[first : first + 50])
        return [until(self.tokenizer.decode(a), self.tokenizer.eos_token) for a in written]

    def accuracy(self, count: int, split: str = "calibration") -> tuple[float, float]:
        """Share of right final answers of word problems, and of functions written as expected."""
        problems = [problem(seed, split) for seed in range(count)]
        functions = [exercise(seed, split) for seed in range(count // 2)]
        texts = self.answers([p.question for p in problems])
        bodies = self.answers([f.question for f in functions])
        self.sample = texts[0]
        right = sum(final_answer(t) == p.answer for t, p in zip(texts, problems, strict=True))
        same = sum(body == f.solution for body, f in zip(bodies, functions, strict=True))
        return right / len(problems), same / max(len(functions), 1)

    def train(self) -> None:
        bar = tqdm(total=self.config["steps"], initial=self.step, mininterval=5)
        losses: list[float] = []
        while self.progress < 1:
            if not self.alone and self.step % AGREE == 0:
                agree(self.model)
            losses.append(self.train_step())
            bar.update()
            if not self.alone and dist.get_rank() > 0:
                continue
            if self.step % self.config["check_every"] == 0 or self.progress >= 1:
                self.record(sum(losses) / len(losses))
                bar.set_postfix(loss=sum(losses) / len(losses), best=self.best)
                losses = []
        bar.close()

    def record(self, loss: float) -> None:
        """Measure, log and save."""
        accuracy, functions = self.accuracy(self.config["check_problems"])
        entry = {
            "step": self.step,
            "minutes": round(self.seconds / 60, 2),
            "loss": round(loss, 4),
            "accuracy": accuracy,
            "functions": functions,
            "sample": self.sample,
        }
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        if accuracy >= self.best or self.progress >= 1:
            self.best = max(self.best, accuracy)
            save_file(self.average.state_dict(), self.folder / "best.safetensors")
        self.save()

    def state(self) -> dict[str, Tensor]:
        """Weights, averaged weights and optimizer moments by name."""
        state = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        state |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            for j, moments in optimizer.state_dict()["state"].items():
                for name, value in moments.items():
                    state[f"optimizer.{i}.{j}.{name}"] = torch.as_tensor(value)
        return {k: v.contiguous() for k, v in state.items()}

    def save(self) -> None:
        save_file(self.state(), self.folder / "state.new")
        (self.folder / "state.new").replace(self.folder / "state.safetensors")
        position = {"step": self.step, "seconds": self.seconds, "best": self.best}
        (self.folder / "state.json").write_text(json.dumps(position))

    def resume(self) -> None:
        position = json.loads((self.folder / "state.json").read_text())
        self.step, self.seconds, self.best = (position[k] for k in ("step", "seconds", "best"))
        state = load_file(self.folder / "state.safetensors")
        for part in ("model", "average"):
            weights = {k[len(part) + 1 :]: v for k, v in state.items() if k.startswith(part + ".")}
            getattr(self, part).load_state_dict(weights)
        for i, optimizer in enumerate(self.optimizers):
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                if key.startswith(f"optimizer.{i}."):
                    _, _, j, name = key.split(".")
                    moments.setdefault(int(j), {})[name] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def agree(model: nn.Module) -> None:
    """Give the model the mean of its weights over all processes."""
    weights = [weight.data for weight in model.parameters()]
    whole = torch.cat([weight.flatten() for weight in weights])
    dist.all_reduce(whole)
    means = (whole / dist.get_world_size()).split([weight.numel() for weight in weights])
    for weight, mean in zip(weights, means, strict=True):
        weight.copy_(mean.view_as(weight))


def until(text: str, end: str) -> str:
    """What stands before the first end token."""
    return text.split(end, 1)[0]


def main(objective: Any, description: str | None) -> None:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="folder of log and checkpoints")
    parser.add_argument("--threads", type=int, help="CPU threads")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    config = json.loads(arguments.config.read_text())
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        if config.get("minutes"):
            raise ValueError('"minutes" must be null where several processes train: say "steps"')
        dist.init_process_group()
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        config["seed"] += dist.get_rank()  # texts and masks of its own
    tokenizer = PreTrainedTokenizerFast.from_pretrained(config["tokenizer"])
    Run(objective(config, tokenizer), config, tokenizer, arguments.run).train()
    print(
        f"trained; `python -m training.export --config {arguments.config} --run {arguments.run} "
        "--output FOLDER` writes the checkpoint and its learning curve"
    )
