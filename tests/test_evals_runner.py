"""The runner: nothing lost, nothing twice, whatever kills it."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy import ScriptedEngine

from dlmdecode.evals.arithmetic_task import Arithmetic
from dlmdecode.evals.plan import Contender, plan
from dlmdecode.evals.record import differences, modules
from dlmdecode.evals.results import Results, line_of, read_rows
from dlmdecode.evals.runner import Worker, evaluate
from dlmdecode.evals.summary import Run
from dlmdecode.evals.task import Subset, Task

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
        stats={"forward_rows": sum(n % 7 for n in noise), "forward_positions": 1, "seconds": pause},
    )


def worker(generate=fake_generate, warm_up=True, **arguments):
    make_engine = partial(ScriptedEngine, generate)
    return lambda: Worker(lambda: None, arguments, warm_up, make_engine=make_engine)


def run(output, task=None, contenders=CONTENDERS, generate_text=None, **options):
    def one_text(model, prompts, sampler, **arguments):
        count = len(prompts)
        return SimpleNamespace(texts=[generate_text] * count, nfe=[1] * count,
                               new_tokens=[1] * count,
                               stats={"forward_rows": count, "seconds": 0.1,
                                      "forward_positions": 1})  # fmt: skip

    make_worker = worker(fake_generate if generate_text is None else one_text)
    return evaluate(task or Sums(), contenders, output, make_worker, progress=False, **options)


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
    fields.add("forward_positions")
    assert set(rows[0]) == fields
    assert all(row["correct"] == (int(row["text"]) % 2 == 0) for row in rows)


def test_jobs_hold_problems_of_similar_length_and_cover_all():
    jobs = plan(Sums(), CONTENDERS, batch_size=1)
    assert [job.contender for job in jobs] == CONTENDERS * 6  # each job by one after the other
    own = jobs[::2]
    assert [job.problems for job in own] == [job.problems for job in jobs[1::2]]
    assert [len(job.problems) for job in own] == [4, 4, 4, 4, 4, 3]
    lengths = [len(prompt) for job in own for prompt in job.prompts]
    assert lengths == sorted(lengths, reverse=True)
    assert sorted(i for job in own for i in job.problems) == list(range(23))


def test_jobs_of_an_extended_run_stay_as_they_were():
    short, long = plan(Sums(23), CONTENDERS, 4), plan(Sums(40), CONTENDERS, 4, [23, 40])
    assert long[: len(short)] == short
    assert sorted(i for job in long[len(short) :: 2] for i in job.problems) == list(range(23, 40))


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
        ({"contenders": CONTENDERS[:1]}, "samplers.1.label: .threshold,threshold=0.8. there"),
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


ROW = {"sampler": "a", "id": "1", "correct": True, "text": "", "nfe": 1, "new_tokens": 1,
       "forward_rows": 1.0, "seconds": 0.5}  # fmt: skip


@pytest.mark.parametrize(
    "damage",
    [b"nonsense", b"", b"[]", b"{}", b"\0\0\0", b"\xff\xfe", line_of({**ROW, "nfe": "1"})[:-1],
     line_of({k: v for k, v in ROW.items() if k != "text"})[:-1], line_of(ROW)[:40]],
)  # fmt: skip
def test_a_damaged_line_in_the_middle_is_named_and_one_at_the_end_is_healed(tmp_path, damage):
    path = tmp_path / "results.jsonl"
    path.write_bytes(line_of(ROW) + damage + b"\n" + line_of({**ROW, "id": "2"}))
    with pytest.raises(ValueError, match=re.escape(f"{path}: line 2 is no result")):
        read_rows(path)
    path.write_bytes(line_of(ROW) + damage)
    assert read_rows(path) == ([ROW], len(line_of(ROW)))


def test_a_repeated_line_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(line_of(ROW) * 2)
    with pytest.raises(ValueError, match=re.escape(f"{path}: line 2 repeats")):
        read_rows(path)


def test_text_that_is_no_unicode_comes_back_as_it_was(tmp_path):
    row = {**ROW, "text": "\ud800 ü"}
    with Results(tmp_path / "results.jsonl") as results:
        results.add(row)
    assert read_rows(tmp_path / "results.jsonl")[0] == [row]
    assert (tmp_path / "results.jsonl").read_text(encoding="utf-8").count("ü") == 1


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "{}", '{"task": {"problems": 23}}', '{"task": 3, "samplers": []}']
)
def test_a_damaged_record_is_named(tmp_path, damage):
    run(tmp_path)
    (tmp_path / "run.json").write_text(damage)
    message = re.escape(f"{tmp_path / 'run.json'} is damaged")
    with pytest.raises(ValueError, match=message):
        run(tmp_path)
    with pytest.raises(ValueError, match=message):
        Run.read(tmp_path)


def test_results_without_a_record_are_not_mixed_with_others(tmp_path):
    run(tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match="results.jsonl has no run.json beside it"):
        run(tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_results_of_a_sampler_that_the_record_lacks_are_named(tmp_path):
    run(tmp_path)
    with open(tmp_path / "results.jsonl", "ab") as file:
        file.write(line_of(ROW))
    with pytest.raises(ValueError, match="results.jsonl: line 47 is of 'a', which run.json lacks"):
        Run.read(tmp_path)


def test_results_that_are_not_asked_for_are_kept_and_named(tmp_path):
    run(tmp_path)
    with open(tmp_path / "results.jsonl", "ab") as file:
        file.write(line_of({**ROW, "sampler": "vanilla"}))
    before = (tmp_path / "results.jsonl").read_bytes()
    with pytest.raises(ValueError, match="a result of .'vanilla', '1'., which is not asked"):
        run(tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_problems_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="sums: 2 problems have the id 'sums/3'"):
        run(tmp_path, Subset(Sums(), [3, 4, 3]))


@pytest.mark.parametrize("cut", [46, 60, 79])  # results that the extension had when it was stopped
def test_a_larger_limit_extends_a_run_and_decodes_only_what_is_new(tmp_path, cut):
    run(tmp_path, Sums(23))
    first = json.loads((tmp_path / "run.json").read_text())
    decoded = []

    def counting(model, prompts, sampler, **options):
        decoded.extend(prompts)
        return fake_generate(model, prompts, sampler, **options)

    def extend():
        make_worker = worker(counting, warm_up=False)
        return evaluate(Sums(40), CONTENDERS, tmp_path, make_worker, progress=False)

    extend()
    assert sorted(decoded) == sorted([Sums().prompt(i) for i in range(23, 40)] * 2)
    lines = (tmp_path / "results.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_bytes(b"".join(lines[:cut]))
    extend()
    run(tmp_path / "whole", Sums(40))
    assert without_seconds(tmp_path) == without_seconds(tmp_path / "whole")
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["stages"] == [23, 40] and record["task"]["problems"] == 40
    assert record["started"] == first["started"] and record["finished"]


def test_only_the_same_problems_are_extended(tmp_path):
    run(tmp_path, Arithmetic(5), generate_text="#### 1")
    run(tmp_path, Arithmetic(8), generate_text="#### 1")
    with pytest.raises(ValueError, match="task.problems: 8 there, 5 now"):
        run(tmp_path, Arithmetic(5), generate_text="#### 1")
    with pytest.raises(ValueError, match="task.split: .heldout. there, .train. now"):
        run(tmp_path, Arithmetic(9, "train"), generate_text="#### 1")


def test_parts_of_parts_are_described_by_the_whole():
    half = Subset(Sums(40), range(1, 40, 2))
    assert Subset(half, range(3)).chosen == [1, 3, 5]
    assert half.first(3).describe() == Subset(Sums(40), [1, 3, 5]).describe()
    assert Sums(40).first(23).describe() == Sums(23).describe()
    assert Arithmetic(8).first(5).describe() == Arithmetic(5).describe()


LIMITED = """
import resource, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_evals_runner import *

resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))  # as a full disk, at any byte
try:
    run(Path({output!r}))
except OSError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_is_an_error_that_names_the_file_and_loses_nothing(tmp_path):
    for size, name in ((3000, "results.jsonl"), (900, "run.json.part")):
        output = tmp_path / str(size)
        script = LIMITED.format(tests=str(Path(__file__).parent), output=str(output), size=size)
        full = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert full.returncode == 1 and full.stderr.strip().endswith(f"'{output / name}'")
        run(output)
        run(tmp_path / "whole")
        assert without_seconds(output) == without_seconds(tmp_path / "whole")


@pytest.fixture
def read_only(monkeypatch):
    """Nothing can be opened for writing, as on a disk that is mounted so."""
    original = open

    def refuse(path, mode="r", *args, **options):
        if set(mode) & set("wax+"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return original(path, mode, *args, **options)

    return lambda: monkeypatch.setattr("builtins.open", refuse)


def test_a_finished_run_on_a_read_only_disk_is_read(tmp_path, read_only):
    rows = run(tmp_path)
    read_only()
    assert run(tmp_path) == rows
    assert len(Run.read(tmp_path).rows) == 2


def test_an_unfinished_run_on_a_read_only_disk_is_an_error_before_any_work(tmp_path, read_only):
    run(tmp_path)
    lines = (tmp_path / "results.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "results.jsonl").write_bytes(b"".join(lines[:-3]))
    read_only()
    with pytest.raises(ValueError, match="results.jsonl cannot be written to, and results are mis"):
        evaluate(Sums(), CONTENDERS, tmp_path, lambda: pytest.fail("work"), progress=False)


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
    at = record["environment"]
    assert differences(record, {**record, "environment": {**at, "commit": "another"}}) == []
    (changed,) = differences(record, {**record, "environment": {**at, "code_sha256": "another"}})
    assert changed.startswith("environment.code_sha256: ")


def test_the_hash_of_the_code_is_that_of_the_package_and_what_belongs_to_it():
    names = {f"{path.parent.name}/{path.name}" for path in modules()}
    assert {"samplers/threshold.py", "evals/record.py", "decoding/loop.py"} <= names


def test_the_worker_warms_up_once_for_each_sampler():
    calls = []

    def generate(model, prompts, sampler, **options):
        calls.extend(prompts)
        return fake_generate(model, prompts, sampler, **options)

    answer = worker(generate)()
    first, second, third, fourth = plan(Sums(4), CONTENDERS, 1, [2, 4])
    for job in (first, second, third, fourth):
        assert [i for i, _ in answer(job)] == list(job.problems)
    assert calls == [
        prompt
        for job, warm_up in ((first, 1), (second, 1), (third, 0), (fourth, 0))
        for prompt in (*job.prompts[:warm_up], *job.prompts)
    ]


def test_sampler_options_are_read_from_the_command_line_form():
    contender = Contender.parse("a+b,a=0.5,b=none,c=word,d=[1, 2],e=True")
    assert contender.spec == "a+b" and contender.options == {
        "a": 0.5, "b": None, "c": "word", "d": (1, 2), "e": True,
    }  # fmt: skip
    assert Contender.parse("threshold,gen_length=64").options == {"max_new_tokens": 64}
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
        answer = worker()()

        def work(job):
            if len(job.problems) == 7 and not marker.exists():  # some way into the run
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return answer(job)

        return work

    run(tmp_path / "local", batch_size=4)
    evaluate(Sums(), CONTENDERS, tmp_path / "ray", make_worker, engine=ray_engine(2),
             batch_size=4, progress=False)  # fmt: skip
    assert marker.exists()
    assert without_seconds(tmp_path / "ray") == without_seconds(tmp_path / "local")


def test_a_worker_may_give_its_answers_as_a_list_in_order(tmp_path):
    def worker(job):
        return [
            {"text": "#### \ud800", "nfe": 1, "new_tokens": 1, "forward_rows": 1, "seconds": 0.1}
            for _ in job.problems
        ]

    rows = evaluate(Arithmetic(3), [Contender("vanilla", "vanilla")], tmp_path / "run",
                    lambda: worker, progress=False, batch_size=2)  # fmt: skip
    assert [row["correct"] for row in rows] == [False] * 3
