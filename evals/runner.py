"""Put samplers through a task: jobs by length, one line a result, resumable at any point.

A run's folder holds `results.jsonl` and `run.json`. Jobs are the same in every session of a run:
where one was half written when the process died, it is done again and the missing lines added. A
run of the first problems only is extended by the same command with more of them.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dlmdecode.evals.plan import Contender, Job, plan
from dlmdecode.evals.record import describe_run, now, open_record, write_record
from dlmdecode.evals.results import Key, Results
from dlmdecode.evals.task import Prompt, Task


class Worker:
    """Answers jobs with one model. `load` is called in the process that does the work."""

    def __init__(
        self,
        load: Callable[[], Any],
        arguments: dict[str, Any],
        warm_up: bool = True,
        truncate: bool = False,
        make_engine: Callable[..., Any] | None = None,
    ):
        self.model, self.arguments, self.truncate = load(), arguments, truncate
        self.warm: set[str] | None = set() if warm_up else None  # labels that ran already
        import dlmdecode

        self.make_engine = make_engine or dlmdecode.Engine

    def __call__(self, job: Job) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each problem and its answer, as they are finished.

        An answer has text, NFE, new tokens, forward rows and seconds.
        """
        given = {**self.arguments, **job.contender.options}
        prompts: list[Any] = list(job.prompts)
        cut: list[dict[str, Any]] = [{}] * len(prompts)
        if self.truncate:
            prompts, cut = self.truncated(prompts, given["max_new_tokens"])
        engine = self.make_engine(
            self.model, job.contender.spec, batch_size=job.batch_size, **given
        )
        if self.warm is not None and job.contender.label not in self.warm:
            for request in engine.run(prompts[:1]):
                request.result()
            self.warm.add(job.contender.label)
        for request in engine.run(prompts):
            yield job.problems[request.index], answer_of(request.result()) | cut[request.index]

    def truncated(self, prompts: list[Prompt], new_tokens: int) -> tuple[list[Any], list[dict]]:
        """Token ids of each prompt, without its beginning where the model has no room for it."""
        from dlmdecode.prompts import encode_prompts

        ids = encode_prompts(prompts, None, self.model)
        room = max((self.model.max_length or sum(map(len, ids)) + new_tokens) - new_tokens, 1)
        return [row[-room:] for row in ids], [{"truncated": len(row) > room} for row in ids]


def answer_of(out: Any) -> dict[str, Any]:
    """What a result row says of a `Generation`."""
    if out.texts is None:
        raise ValueError("the model has no tokenizer, so there is no text to grade")
    return {
        "text": out.texts[0],
        "nfe": out.nfe[0],
        "new_tokens": out.new_tokens[0],
        "forward_rows": out.stats["forward_rows"],
        "forward_positions": out.stats["forward_positions"],
        "seconds": round(out.stats["seconds"], 6),
    }


MakeWorker = Callable[[], Callable[[Job], Iterator[tuple[int, dict[str, Any]]]]]
Answered = tuple[Job, int, dict[str, Any]]
Engine = Callable[[MakeWorker, Sequence[Job]], Iterator[Answered]]


def local(make_worker: MakeWorker, jobs: Sequence[Job]) -> Iterator[Answered]:
    """The default engine: this process, one job after the other."""
    worker = make_worker()
    for job in jobs:
        found: Any = worker(job)
        pairs = zip(job.problems, found, strict=True) if isinstance(found, list) else found
        for i, answer in pairs:
            yield job, i, answer


def evaluate(
    task: Task,
    contenders: Sequence[Contender],
    output: Path,
    make_worker: MakeWorker,
    *,
    arguments: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    batch_size: int = 8,
    engine: Engine = local,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Run, or finish, an evaluation; its result rows, sampler by sampler in the task's order.

    Args:
        output: the run's folder; what it already holds is not done again.
        make_worker: gives the callable that answers a `Job`, such as `lambda: Worker(…)`: it
            yields each problem's number with its answer, or returns a list of all in order.
        arguments, model: recorded in `run.json`; `arguments` are those the worker has.

    Raises:
        ValueError: `output` holds a run with other settings or is in use; a bad argument.
    """
    check_plan(task, contenders, batch_size)
    output.mkdir(parents=True, exist_ok=True)
    check_folder(output)
    with Results(output / "results.jsonl") as results:
        described = describe_run(task, contenders, arguments or {}, batch_size, model or {})
        record = open_record(
            output / "run.json", described, lambda number: task.first(number).describe()
        )
        order: list[Key] = [(c.label, task.id(i)) for c in contenders for i in range(len(task))]
        every = plan(task, contenders, batch_size, record["stages"])
        jobs = [job for job in every if missing(task, job, results)]
        check_results(results, order, jobs)
        with Progress(results, len(task) * len(contenders), progress) as bar:
            for job, i, answer in engine(make_worker, jobs) if jobs else ():
                if (job.contender.label, task.id(i)) not in results.rows:
                    results.add(row_of(task, job.contender, i, answer))
                    bar.show(job.contender.label)
        if results.writable:
            results.finish(order)
            if "finished" not in record:
                write_record(output / "run.json", {**record, "finished": now()})
        return [results.rows[key] for key in order]


@contextmanager
def resumable(output: Path) -> Iterator[None]:
    """After Ctrl-C, say on stderr how the run of this command goes on."""
    try:
        yield
    except KeyboardInterrupt:
        script = Path(sys.argv[0]).name == "dlmdecode"
        command = shlex.join(["dlmdecode", *sys.argv[1:]] if script else sys.orig_argv)
        print(f"what is done is kept in {output}; to go on: {command}", file=sys.stderr)
        raise


def check_folder(output: Path) -> None:
    """Results that no record explains must not be mixed with others."""
    results = output / "results.jsonl"
    alone = results.exists() and results.stat().st_size and not (output / "run.json").exists()
    if alone:
        raise ValueError(f"{results} has no run.json beside it; restore that, or move it away")


def check_results(results: Results, order: Sequence[Key], jobs: Sequence[Job]) -> None:
    """Refuse results that were not asked for, and missing ones where they cannot be written."""
    if foreign := results.rows.keys() - set(order):
        raise ValueError(f"{results.path} has a result of {foreign.pop()}, which is not asked")
    if jobs and not results.writable:
        raise ValueError(f"{results.path} cannot be written to, and results are missing")


def check_plan(task: Task, contenders: Sequence[Contender], batch_size: int) -> None:
    labels = [contender.label for contender in contenders]
    if not labels:
        raise ValueError("--sampler: give at least one")
    label, times = Counter(labels).most_common(1)[0]
    if times > 1:
        raise ValueError(f"--sampler {label}: asked for {times} times: give each only once")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: give at least 1")
    if not len(task):
        raise ValueError(f"{task.name} has no problems: raise --limit")
    name, count = Counter(task.id(i) for i in range(len(task))).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{task.name}: {count} problems have the id {name!r}; give each its own")


def missing(task: Task, job: Job, results: Results) -> bool:
    return any((job.contender.label, task.id(i)) not in results.rows for i in job.problems)


def row_of(task: Task, contender: Contender, i: int, answer: dict[str, Any]) -> dict[str, Any]:
    score = task.score(i, answer["text"])
    return {"id": task.id(i), "sampler": contender.label, "correct": score["correct"]} | {
        **score,
        **answer,
    }


class Progress:
    """A bar over all results, with the current sampler's accuracy and tokens per forward so far."""

    def __init__(self, results: Results, total: int, shown: bool):
        self.results = results
        self.bar = tqdm(
            total=total,
            initial=len(results.rows),
            disable=not shown,
            unit="problem",
            mininterval=0.1 if sys.stderr.isatty() else 20,  # a log file gets few lines
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def show(self, label: str) -> None:
        rows = [row for row in self.results.rows.values() if row["sampler"] == label]
        accuracy = 100 * sum(row["correct"] for row in rows) / len(rows)
        forwards = sum(row["nfe"] for row in rows)
        speed = sum(row["new_tokens"] for row in rows) / max(forwards, 1)
        self.bar.set_description(label, refresh=False)
        self.bar.set_postfix_str(f"accuracy {accuracy:.1f} %, TPF {speed:.2f}", refresh=False)
        self.bar.update(len(self.results.rows) - self.bar.n)
