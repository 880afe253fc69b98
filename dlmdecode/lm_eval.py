"""Diffusion language models in EleutherAI's lm-evaluation-harness.

    python -m dlmdecode.lm_eval run --model dlmdecode \\
        --model_args pretrained=tiny,sampler=adablock+credit,max_new_tokens=128 --tasks gsm8k

Every sampler option may stand among the model arguments (`threshold=0.8`). Generation ends at the
task's `until` strings, which are looked for in the finished text. Log-likelihoods are the Monte
Carlo bound of LLaDA (arXiv 2502.09992): an average over random masks, so they carry noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import dlmdecode

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError:
    raise ImportError("dlmdecode.lm_eval needs the harness: pip install lm-eval") from None

ALIASES = {"gen_length": "max_new_tokens", "block_size": "block_length", "cfg": "cfg_scale",
           "diffusion_steps": "steps"}  # fmt: skip


@register_model("dlmdecode")
class DiffusionLM(LM):
    """A checkpoint with a sampler.

    Args:
        pretrained: embedded name, hub id or folder; or a loaded model.
        sampler: as for `generate`.
        batch_size: prompts, or masked copies of one text, in a call of the model.
        mc_num: masks drawn for a log-likelihood.
        is_check_greedy: also decode each continuation token by token, to tell whether it is what
            greedy decoding gives; otherwise the answer is always no.
        escape_until: keep the text after an `until` string.
        seed: of masks and of sampling.
        **options: arguments of `generate` and options of the sampler.

    Raises:
        ValueError: the model has no tokenizer, an alias contradicts its name, or remote code.
    """

    def __init__(
        self,
        pretrained: Any = "tiny",
        sampler: str = "threshold",
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str = "auto",
        revision: str | None = None,
        mc_num: int = 128,
        is_check_greedy: bool = False,
        escape_until: bool = False,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__()
        if options.pop("trust_remote_code", False):
            raise ValueError("trust_remote_code=True: remote code is never run; leave it out")
        options.pop("max_batch_size", None)  # the harness passes it always
        if device == "cuda:0" and not torch.cuda.is_available():
            device = None  # the harness's default, whatever the machine has
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ValueError(f"batch_size={batch_size!r}: give a whole number, at least 1")
        if mc_num < 1:
            raise ValueError(f"mc_num={mc_num}: give at least 1")
        for alias, name in ALIASES.items():
            if alias in options:
                value = options.pop(alias)
                if options.setdefault(name, value) != value:
                    raise ValueError(f"{alias}={value!r} and {name}={options[name]!r}: give one")
        self.model = (
            dlmdecode.load(pretrained, device, dtype, revision)
            if isinstance(pretrained, str)
            else pretrained
        )
        if self.model.tokenizer is None:
            raise ValueError(f"pretrained={pretrained!r} has no tokenizer")
        self.sampler, self.options, self.seed = sampler, options, seed
        self.batch_size, self.mc_num = int(batch_size), mc_num
        self.is_check_greedy, self.escape_until = is_check_greedy, escape_until

    # ---- generation ----

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """The text of each request, cut at its `until` strings."""
        texts: list[str] = []
        with tqdm(total=len(requests), disable=disable_tqdm) as bar:
            for batch in self.batches(requests):
                prompts = [request.args[0] for request in batch]
                settings = batch[0].args[1]
                out = dlmdecode.generate(
                    self.model, prompts, self.sampler, seed=self.seed, **self.arguments(settings)
                )
                stops = until_of(settings, self.escape_until)
                for request, text in zip(batch, out.texts or (), strict=True):
                    texts.append(cut(text, stops))
                    self.cache_hook.add_partial("generate_until", request.args, texts[-1])
                bar.update(len(batch))
        return texts

    def batches(self, requests: Sequence[Instance]) -> list[list[Instance]]:
        """Neighbours with the same generation settings, at most `batch_size` of them."""
        batches: list[list[Instance]] = []
        for request in requests:
            full = not batches or len(batches[-1]) == self.batch_size
            if full or batches[-1][0].args[1] != request.args[1]:
                batches.append([])
            batches[-1].append(request)
        return batches

    def arguments(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What `generate` is given: the model arguments win over the task's own settings."""
        wanted: dict[str, Any] = {}
        if settings.get("max_gen_toks"):
            wanted["max_new_tokens"] = settings["max_gen_toks"]
        if settings.get("do_sample") and settings.get("temperature"):
            wanted["temperature"] = settings["temperature"]
        return wanted | self.options

    # ---- log-likelihood ----

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Bound on log p(continuation | context), and whether greedy decoding gives it."""
        answers = []
        for request in tqdm(requests, disable=disable_tqdm):
            prompt, target = self.encode_pair(*request.args)
            value = self.bound(prompt, target)
            greedy = self.is_check_greedy and self.is_greedy(prompt, target)
            answers.append((value, greedy))
            self.cache_hook.add_partial("loglikelihood", request.args, answers[-1])
        return answers

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Bound on log p(text). A text longer than the model is scored in consecutive pieces."""
        answers = []
        for request in tqdm(requests, disable=disable_tqdm):
            ids = self.encode(request.args[0])
            empty, room = ids[:0], self.model.max_length or len(ids)
            pieces = ids.split(max(room, 1))
            answers.append(sum(self.bound(empty, piece) for piece in pieces if len(piece)))
        return answers

    def encode(self, text: str) -> Tensor:
        ids = self.model.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor(ids, dtype=torch.int64, device=self.model.device)

    def encode_pair(self, context: str, continuation: str) -> tuple[Tensor, Tensor]:
        """Ids of both, tokenized together so that a token may not straddle them unnoticed.

        A context that leaves no room loses its beginning, as the harness has it for other models.
        """
        body = context.rstrip()
        continuation = context[len(body) :] + continuation
        whole, prompt = self.encode(body + continuation), self.encode(body)
        target = whole[len(prompt) :]
        if self.model.max_length is not None:
            room = self.model.max_length - len(target)
            if room < 0:
                raise ValueError(
                    f"a continuation of {len(target)} tokens is longer than the model "
                    f"({self.model.max_length}): leave the task out"
                )
            prompt = prompt[max(len(prompt) - room, 0) :]
        return prompt, target

    @torch.inference_mode()
    def bound(self, prompt: Tensor, target: Tensor) -> float:
        """Mean over `mc_num` masks of n/m · Σ log p of the m masked tokens of n (their eq. 6).

        The numbers of masked tokens are spread evenly over 1…n, which lowers the variance.
        """
        n = len(target)
        if n == 0:
            return 0.0
        generator = torch.Generator().manual_seed(self.seed)
        first = torch.randint(n, (), generator=generator)
        counts = (first + torch.arange(self.mc_num) * n / self.mc_num).long() % n + 1
        ranks = torch.rand(self.mc_num, n, generator=generator).argsort(1)
        masked = (ranks < counts[:, None]).to(target.device)
        total = 0.0
        for rows in masked.split(self.batch_size):
            log_prob = self.log_probs(prompt, target.masked_fill(rows, self.model.mask_id))
            own = log_prob.gather(2, target.expand(len(rows), n)[..., None])[..., 0]
            total += float(((own * rows).sum(1) * n / rows.sum(1)).sum())
        return total / self.mc_num

    def log_probs(self, prompt: Tensor, canvas: Tensor) -> Tensor:
        """Log-probabilities (N, n, V), fp32, of the positions of `canvas` (N, n) after `prompt`."""
        rows, n = canvas.shape
        tokens = torch.cat([prompt.expand(rows, -1), canvas], 1)
        place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        hidden = self.model.encode(tokens, place)
        at = (place[:, -n:] - self.model.shift).clamp(min=0)
        hidden = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))
        return self.model.head(hidden).float().log_softmax(-1)

    @torch.inference_mode()
    def is_greedy(self, prompt: Tensor, target: Tensor) -> bool:
        """Whether filling the surest position first, one at a time, writes `target`."""
        canvas = torch.full_like(target, self.model.mask_id)
        for _ in range(len(target)):
            log_prob, token = self.log_probs(prompt, canvas[None])[0].max(-1)
            log_prob[canvas != self.model.mask_id] = -torch.inf
            at = log_prob.argmax()
            if token[at] != target[at]:
                return False
            canvas[at] = target[at]
        return True

    # ---- chat ----

    @property
    def tokenizer_name(self) -> str:
        return getattr(self.model.tokenizer, "name_or_path", "").replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        return self.model.tokenizer.chat_template or ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        return self.model.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )


def until_of(settings: dict[str, Any], escape: bool) -> list[str]:
    """The stop strings of a task's generation settings."""
    until = settings.get("until") or []
    until = [until] if isinstance(until, str) else list(until)
    return [] if escape else [stop for stop in until if stop]


def cut(text: str, stops: Sequence[str]) -> str:
    return text[: min((at for at in map(text.find, stops) if at >= 0), default=len(text))]


def main() -> None:
    """The harness's own command line, with this model among its models."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
