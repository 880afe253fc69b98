"""Shards a run over a Ray cluster: each actor holds a model, a lost actor's jobs are done again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dlmdecode.evals.plan import Job
from dlmdecode.evals.runner import Answered, Engine, MakeWorker

RESTARTS = 3  # of one actor, and tries of one job: a job that kills its worker must not loop


def ray_engine(num_workers: int, gpus_per_worker: float = 0, address: str | None = None) -> Engine:
    """An engine of `num_workers` actors on the cluster at `address` (None: one on this machine).

    Raises:
        ValueError: Ray is not installed, or fewer than one worker is asked for.
    """
    try:
        import ray
        from ray.util import ActorPool
    except ImportError:
        raise ValueError("--engine ray needs Ray: pip install ray") from None
    if num_workers < 1:
        raise ValueError(f"--workers {num_workers}: give at least 1")

    class Actor:
        def __init__(self, make_worker: MakeWorker):
            self.work = make_worker()

        def answer(self, number: int, job: Job) -> tuple[int, list[tuple[int, dict[str, Any]]]]:
            return number, list(self.work(job))

    def run(make_worker: MakeWorker, jobs: Sequence[Job]) -> Iterator[Answered]:
        if not ray.is_initialized():
            ray.init(address=address, include_dashboard=False, log_to_driver=False)
        remote = ray.remote(
            num_gpus=gpus_per_worker, max_restarts=RESTARTS, max_task_retries=RESTARTS
        )(Actor)
        actors: list[Any] = [remote.remote(make_worker) for _ in range(min(num_workers, len(jobs)))]
        pool = ActorPool(actors)
        try:
            for number, answers in pool.map_unordered(
                lambda actor, item: actor.answer.remote(*item), list(enumerate(jobs))
            ):
                for i, answer in answers:
                    yield jobs[number], i, answer
        finally:
            for actor in actors:
                ray.kill(actor)

    return run
