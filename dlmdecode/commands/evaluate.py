"""The command `dlmdecode eval`.

dlmdecode eval arithmetic --model tiny --sampler vanilla --sampler prophet --output runs/a
dlmdecode eval gsm8k --data test.jsonl --shots-data train.jsonl --sampler vanilla --output runs/g
dlmdecode eval humaneval --allow-code-execution --sampler threshold,threshold=0.8 --output runs/h
dlmdecode eval report runs/a runs/g
dlmdecode eval tune arithmetic --sampler threshold --budget 0.5 --output runs/t
dlmdecode eval frontier arithmetic --output runs/f
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dlmdecode.checks import Count, conform
from dlmdecode.composition import Composition
from dlmdecode.console import add_model, add_settings, given_settings, load_model, loading
from dlmdecode.evals.plan import Contender
from dlmdecode.evals.registry import RegisteredTask, registered_tasks
from dlmdecode.evals.report import compare, section
from dlmdecode.evals.results import READ_ONLY
from dlmdecode.evals.runner import Engine, Worker, evaluate, local, resumable
from dlmdecode.evals.summary import Run
from dlmdecode.evals.task import Task
from dlmdecode.options import SYNTAX
from dlmdecode.settings import Settings
from dlmdecode.tables import show_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the sub-commands; `run(parser.parse_args())` carries them out."""
    commands = parser.add_subparsers(dest="evaluation", required=True, metavar="TASK|…")
    for task in registered_tasks():
        add_task(commands, task)
    reporting = commands.add_parser("report", help="table, CSV and plot of finished runs")
    reporting.add_argument("runs", nargs="+", type=Path, metavar="DIR")
    reporting.add_argument("--baseline", help="sampler to compare with (default: vanilla)")
    reporting.add_argument("--output", type=Path, help="where to write (default: the first DIR)")
    tuning = commands.add_parser("tune", help="fastest setting within an accuracy budget")
    sweeping = commands.add_parser("frontier", help="every sampler's main option swept")
    for search, name in ((tuning, "tune"), (sweeping, "frontier")):
        tasks = search.add_subparsers(dest="task", required=True, metavar="TASK")
        for task in registered_tasks():
            add_task(tasks, task, name)


def add_task(commands: Any, task: RegisteredTask, search: str | None = None) -> None:
    """The command for a task: to evaluate it, or to "tune" on it or find its "frontier"."""
    purpose = f"{search or 'evaluate'} {task.name}"
    parser = commands.add_parser(task.name, help=purpose, description=task.help)
    parser.set_defaults(make_task=task.build)
    add = parser.add_argument
    add_model(parser)
    add("--output", type=Path, required=True,
        help="folder of the run; the same command goes on where it was stopped")  # fmt: skip
    add("--limit", type=int, help="problems (tune: in each split); a larger one extends a run")
    add("--batch-size", type=int, default=8)
    add_settings(parser)
    add("--chat", action="store_true", help="prompts as chat messages, for instructed models")
    add("--truncate", action="store_true",
        help="leave out the beginning of a prompt that the model has no room for")  # fmt: skip
    add("--quiet", action="store_true", help="no progress bar")
    add("--engine", choices=("local", "ray"), default="local",
        help="ray: batches go to the actors of a Ray cluster (needs the extra 'ray')")  # fmt: skip
    add("--workers", type=int, default=2, help="Ray actors, each with a model (2)")
    add("--ray-address", help="of a running cluster (default: start one here)")
    if search is None:
        add("--sampler", action="append", required=True, metavar=SYNTAX, help="repeatable")
    else:
        add("--baseline", default="vanilla", metavar=SYNTAX, help="to compare with (vanilla)")
        add("--budget", type=float, default=0.5, help="percentage points that may be lost")
    if search == "tune":
        add("--sampler", required=True, metavar=SYNTAX, help="what to tune; options stay as given")
        add("--search", action="append", default=[], metavar="OPTION=V,V,...")
        add("--max-settings", type=int, default=64)
    if search == "frontier":
        add("--sampler", action="append", metavar=SYNTAX, help="repeatable (every one)")
    task.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Carry out parsed arguments; the exit code."""
    if args.evaluation == "report":
        return run_report(args)
    with resumable(args.output):
        commands = {"tune": run_tuning, "frontier": run_frontier}
        return commands.get(args.evaluation, run_task)(args)


def run_report(args: argparse.Namespace) -> int:
    found = compare(args.runs, args.baseline)
    show_report(found.report())
    try:
        found.write(args.output or args.runs[0])
    except OSError as error:
        if args.output is not None or error.errno not in READ_ONLY:
            raise
        print(f"not written: {error}; --output FOLDER writes elsewhere", file=sys.stderr)
    return 0


def build_task(args: argparse.Namespace, halves: int = 1) -> Task:
    """The task, in as many halves of `--limit` problems as there shall be.

    Where it runs programs, a first line says how they are confined.
    """
    limit = conform("limit", args.limit, Count | None)
    task = args.make_task(vars(args), limit and halves * limit, args.chat)
    if isolation := task.describe().get("isolation"):
        limits = ", a guard against accidents only" if isolation == "weak" else ""
        print(f"isolation of the programs: {isolation}{limits}", file=sys.stderr)
    return task


def limited(task: Task, limit: int | None) -> Task:
    if limit is None or limit == len(task):
        return task
    if not 0 < limit <= len(task):
        raise ValueError(f"--limit {limit}: give 1 to {len(task)}")
    return task.first(limit)


def run_task(args: argparse.Namespace) -> int:
    contenders = [Contender.parse(text) for text in args.sampler]
    task = limited(build_task(args), args.limit)
    evaluator(args, contenders)(task, contenders, args.output)
    run = Run.read(args.output)
    show_report(section(run, run.baseline(None)))
    return 0


def run_tuning(args: argparse.Namespace) -> int:
    from dlmdecode.evals.tuning import parse_search, settings

    composition, fixed = Composition.read(args.sampler, {})
    free = {name: value for name, value in composition.options().items() if name not in fixed}
    candidates = settings(args.sampler, parse_search(args.search, free), args.max_settings)
    return search(args, candidates)


def run_frontier(args: argparse.Namespace) -> int:
    from dlmdecode.evals.frontier import sweep, write

    model = load_model(args)
    candidates = sweep(args.sampler, model, generation_arguments(args))
    del model  # the worker has its own
    done = search(args, [c for c in candidates if c.label != args.baseline])
    show_report(write(args.output, args.baseline))
    return done


def search(args: argparse.Namespace, candidates: Sequence[Contender]) -> int:
    """Run candidates on calibration problems, the best one within the budget on held-out ones."""
    from dlmdecode.evals.tuning import spell, tune

    baseline = Contender.parse(args.baseline)
    halves = build_task(args, halves=2).split(generation_arguments(args)["seed"] or 0)
    tasks = (limited(halves[0], args.limit), limited(halves[1], args.limit))
    evaluate_into = evaluator(args, [baseline, *candidates])
    outcome = tune(tasks, candidates, baseline, args.budget, evaluate_into, args.output)
    print(spell(outcome, baseline.label, args.budget))
    return 0 if outcome.confirmed else 1


def evaluator(args: argparse.Namespace, contenders: Sequence[Contender]) -> Callable[..., Any]:
    """`runner.evaluate` with everything but task, contenders and folder filled in."""
    import dlmdecode
    from dlmdecode.evals.record import HOW, model_record
    from dlmdecode.models.config import Config
    from dlmdecode.models.loading import find_folder, pick_device, pick_dtype
    from dlmdecode.models.quantize import check_quantize

    pick_dtype(args.dtype, Config())
    check_quantize(args.quantize)
    if args.engine == "local":  # a worker elsewhere may have what this machine has not
        pick_device(args.device)
    engine, arguments = engine_of(args), generation_arguments(args)
    folder = find_folder(args.model, args.revision)
    model = model_record(folder, args.model, args.revision)
    model |= {name: vars(args)[name] for name in HOW}
    for contender in contenders:
        contender.build(arguments, model["family"])  # a wrong name is an error before any work
    load = partial(dlmdecode.load, args.model, **loading(args))
    return partial(
        evaluate,
        make_worker=partial(Worker, load, arguments, truncate=args.truncate),
        arguments={**arguments, "truncate": args.truncate},
        model=model,
        batch_size=args.batch_size,
        engine=engine,
        progress=not args.quiet,
    )


def generation_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """What `generate` is given for every sampler; what was not asked for keeps its default."""
    return {"max_new_tokens": Settings.max_new_tokens, "seed": 0} | given_settings(args)


def engine_of(args: argparse.Namespace) -> Engine:
    if args.engine == "local":
        return local
    from dlmdecode.evals.ray_engine import ray_engine

    gpus = 1 if (args.device or "").startswith("cuda") else 0
    return ray_engine(args.workers, gpus, args.ray_address)
