"""The runner: nothing lost, nothing twice, whatever kills it."""

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from dlmdecode.evals.record import differences
from dlmdecode.evals.results import Results, read_rows
from dlmdecode.evals.runner import Contender, Worker, evaluate, parse_options, plan
from dlmdecode.evals.task import Task

CONTENDERS = [Contender.parse("vanilla"), Contender.parse("threshold,threshold=0.8")]


class Sums(Task):
    """Additions whose prompts differ in length."""

    name = "sums"

    def __init__(self, size=23):
        self.size = size

    def __len__(self):
        return self.size

    def prompt(self, i):
        return f"{i} + {i}" + " ?" * (i % 5)

    def score(self, i, text):
        return {"correct": text == str(2 * i)}

    def describe(self):
        return {"task": self.name, "problems": self.size}


def fake_generate(model, prompts, sampler, pause=0.0, **options):
    """Answers right, or wrong by a number that depends on prompt and sampler only."""
    time.sleep(pause)
    noise = [zlib.crc32(f"{prompt} {sampler}".encode()) for prompt in prompts]
    sums = [2 * int(prompt.split()[0]) for prompt in prompts]
    return SimpleNamespace(
        texts=[str(s + (n % 3 == 0)) for s, n in zip(sums, noise, strict=True)],
        nfe=[1 + n % 7 for n in noise],
        new_tokens=[n % 11 for n in noise],
        stats={"forward_rows": sum(n % 7 for n in noise)},
    )


def worker(**arguments):
    return lambda: Worker(lambda: None, arguments, generate=fake_generate)


def run(output, task=None, contenders=CONTENDERS, **options):
    return evaluate(task or Sums(), contenders, output, worker(), progress=False, **options)


def without_seconds(path):
    rows = [json.loads(line) for line in Path(path, "results.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_every_problem_of_every_sampler_has_one_line(tmp_path):
    rows = run(tmp_path)
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert rows == [json.loads(line) for line in lines]
    keys = [(row["sampler"], row["id"]) for row in rows]
    expected = [(c.label, f"sums/{i}") for c in CONTENDERS for i in range(23)]
    assert keys == expected
    fields = {"id", "sampler", "correct", "text", "nfe", "new_tokens", "seconds", "forward_rows"}
    assert set(rows[0]) == fields
    assert all(row["correct"] == (int(row["text"]) % 2 == 0) for row in rows)


def test_batches_hold_problems_of_similar_length_and_cover_all():
    jobs = plan(Sums(), CONTENDERS, batch_size=4)
    assert [len(job.problems) for job in jobs] == [4, 4, 4, 4, 4, 3] * 2
    lengths = [len(prompt) for job in jobs[:6] for prompt in job.prompts]
    assert lengths == sorted(lengths, reverse=True)
    assert sorted(i for job in jobs[:6] for i in job.problems) == list(range(23))


@pytest.mark.parametrize("tail", ["", "half", "no newline", "zeros"])
def test_a_run_cut_anywhere_is_finished_without_loss_or_repeats(tmp_path, tail):
    run(tmp_path / "whole")
    whole = (tmp_path / "whole" / "results.jsonl").read_bytes().splitlines(keepends=True)
    run(tmp_path / "cut")
    torn = {"": b"", "half": whole[20][:30], "no newline": whole[20][:-1], "zeros": b"\0" * 50}
    (tmp_path / "cut" / "results.jsonl").write_bytes(b"".join(whole[:20]) + torn[tail])
    run(tmp_path / "cut")
    assert without_seconds(tmp_path / "cut") == without_seconds(tmp_path / "whole")


def test_finished_lines_are_not_decoded_again(tmp_path):
    run(tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()

    def no_worker():
        raise AssertionError("nothing was left to do")

    evaluate(Sums(), CONTENDERS, tmp_path, no_worker, progress=False)
    assert (tmp_path / "results.jsonl").read_bytes() == before


KILLER = """
import os, random, signal, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_evals_runner import *

results, draw, sizes = Path({output!r}, "results.jsonl"), random.Random(0), [0]
for _ in range(20):
    child = os.fork()  # cheaper than twenty interpreters that import torch
    if not child:
        evaluate(Sums(60), CONTENDERS, results.parent, worker(pause=0.01), batch_size=4,
                 progress=False)
        os._exit(0)
    target = sizes[-1] + draw.randrange(1, 900)  # bytes: any point of any line
    while not os.waitpid(child, os.WNOHANG)[0]:
        if results.exists() and results.stat().st_size >= target:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.0005)
    sizes.append(results.stat().st_size)
print(len(set(sizes)))
"""


def test_a_run_killed_twenty_times_equals_one_that_was_not(tmp_path):
    evaluate(Sums(60), CONTENDERS, tmp_path / "whole", worker(pause=0.01), batch_size=4,
             progress=False)  # fmt: skip
    output = tmp_path / "killed"
    script = KILLER.format(tests=str(Path(__file__).parent), output=str(output))
    killer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert killer.returncode == 0, killer.stderr
    assert int(killer.stdout) > 10, "the kills were to hit the run while it wrote"
    evaluate(Sums(60), CONTENDERS, output, worker(pause=0.01), batch_size=4, progress=False)
    assert without_seconds(output) == without_seconds(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"task": Sums(5)}, "task.problems"),
        ({"contenders": CONTENDERS[:1]}, "samplers"),
        ({"batch_size": 3}, "batch_size"),
        ({"arguments": {"max_new_tokens": 32}}, "arguments.max_new_tokens"),
        ({"model": {"weights_sha256": "other"}}, "model.weights_sha256"),
    ],
)
def test_a_folder_with_other_settings_is_refused_and_left_alone(tmp_path, change, key):
    run(tmp_path, model={"weights_sha256": "one"}, arguments={"max_new_tokens": 64})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    same = {"model": {"weights_sha256": "one"}, "arguments": {"max_new_tokens": 64}}
    with pytest.raises(ValueError, match=f"other settings.*{key}"):
        run(tmp_path, **{**same, **change})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_two_runs_do_not_write_one_file(tmp_path):
    with Results(tmp_path / "results.jsonl"):
        with pytest.raises(ValueError, match="another run"):
            run(tmp_path)


def test_a_damaged_or_repeated_line_is_reported(tmp_path):
    path = tmp_path / "results.jsonl"
    line = '{"sampler": "a", "id": "1"}\n'
    path.write_text("nonsense\n" + line)
    with pytest.raises(ValueError, match="line 1 is no result"):
        read_rows(path)
    path.write_text(line + line)
    with pytest.raises(ValueError, match="line 2 repeats"):
        read_rows(path)


def test_the_record_says_what_is_needed_to_repeat_the_run(tmp_path):
    run(tmp_path, model={"name": "m"}, arguments={"max_new_tokens": 64, "seed": 0})
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["task"] == {"task": "sums", "problems": 23}
    assert record["samplers"][1]["options"] == {"threshold": 0.8}
    assert record["arguments"] == {"max_new_tokens": 64, "seed": 0}
    for key in ("token_counting", "timing", "warm_up", "batch_size", "started", "finished"):
        assert record[key]
    assert {"python", "versions", "commit", "processor"} <= set(record["environment"])
    assert differences(record, {**record, "started": "later", "command": []}) == []


def test_the_worker_warms_up_once_for_each_sampler():
    calls = []

    def generate(model, prompts, **options):
        calls.append(len(prompts))
        return fake_generate(model, prompts, **options)

    answer = Worker(lambda: None, {}, generate=generate)
    for job in plan(Sums(8), CONTENDERS, 4):
        answer(job)
    assert calls == [1, 4, 4, 1, 4, 4]


def test_sampler_options_are_read_from_the_command_line_form():
    assert parse_options(["a=0.5", "b=none", "c=word", "d=[1, 2]", "e=True"], "--set") == {
        "a": 0.5, "b": None, "c": "word", "d": (1, 2), "e": True,
    }  # fmt: skip
    contender = Contender.parse("a+b,threshold=0.7", {"threshold": 0.9, "radius": 2})
    assert contender.spec == "a+b" and contender.options == {"threshold": 0.7, "radius": 2}
    listed = Contender.parse("adablock,delimiters=5,6,window=0.5")
    assert listed.options == {"delimiters": (5, 6), "window": 0.5}
    with pytest.raises(ValueError, match="option=value"):
        Contender.parse("threshold,0.7")
    with pytest.raises(ValueError, match="each only once"):
        evaluate(Sums(), CONTENDERS[:1] * 2, Path("unused"), worker())


@pytest.fixture
def ray():
    ray = pytest.importorskip("ray")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    folder = str(Path(__file__).parent)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([folder, *sys.path])}},
    )
    yield ray
    ray.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_two_ray_workers_one_killed_give_what_one_process_gives(tmp_path, ray):
    from dlmdecode.evals.ray_engine import ray_engine

    marker = tmp_path / "killed"

    def make_worker():
        answer = Worker(lambda: None, {}, generate=fake_generate)

        def work(job):
            if len(job.problems) == 3 and not marker.exists():  # some way into the run
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return answer(job)

        return work

    run(tmp_path / "local", batch_size=4)
    evaluate(Sums(), CONTENDERS, tmp_path / "ray", make_worker, engine=ray_engine(2),
             batch_size=4, progress=False)  # fmt: skip
    assert marker.exists()
    assert without_seconds(tmp_path / "ray") == without_seconds(tmp_path / "local")
