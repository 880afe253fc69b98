"""The command: what it prints to a pipe and to a terminal, and how it says what is wrong."""

import io
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from toy import MODELS, give_llada_tokenizer

import dlmdecode
from dlmdecode import console
from dlmdecode.commands import catalogue, cli
from dlmdecode.commands.cli import main
from dlmdecode.commands.speculate import Progress
from dlmdecode.evals.arithmetic import SPLITS, problem
from dlmdecode.evals.functions import exercise
from dlmdecode.evals.stories.story import KNOWN
from dlmdecode.flight import Flight
from dlmdecode.models.domain import is_foreign
from dlmdecode.options import value_of
from dlmdecode.speculation.result import Step as Verification

PROMPT = "w1 w2 w3"
SMALL = ["--max-new-tokens", "16", "--block-length", "8", "--device", "cpu"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The LLaDA micro checkpoint with a word tokenizer."""
    target = tmp_path_factory.mktemp("models") / "micro"
    shutil.copytree(MODELS / "llada-micro", target)
    give_llada_tokenizer(target)
    return str(target)


@pytest.fixture
def run(capsys):
    """Run the command; its exit code, standard output and standard error."""

    def run(*argv):
        try:
            code = main([str(arg) for arg in argv])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


class Terminal(io.StringIO):
    def isatty(self):
        return True


# generate


def test_generate_prints_the_text_and_nothing_else_when_piped(run, folder):
    code, out, err = run("generate", PROMPT, "--model", folder, *SMALL)
    model = dlmdecode.load(folder)
    messages = [{"role": "user", "content": PROMPT}]
    same = dlmdecode.generate(model, messages, "threshold", max_new_tokens=16, block_length=8)
    assert (code, out, err) == (0, same.texts[0] + "\n", "")


def test_raw_leaves_the_chat_template_out(run, folder):
    _, out, _ = run("generate", PROMPT, "--raw", "--model", folder, *SMALL)
    same = dlmdecode.generate(
        dlmdecode.load(folder), PROMPT, "threshold", max_new_tokens=16, block_length=8
    )
    assert out == same.texts[0] + "\n"
    assert out != run("generate", PROMPT, "--model", folder, *SMALL)[1]


def test_a_dash_reads_the_prompt_from_standard_input(run, folder, monkeypatch):
    expected = run("generate", PROMPT, "--model", folder, *SMALL)[1]
    for text in (PROMPT, f"{PROMPT}\n", f"{PROMPT}\r\n", f"\ufeff{PROMPT}\n"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert run("generate", "-", "--model", folder, *SMALL)[1] == expected


def test_only_the_last_line_break_of_standard_input_is_left_out(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\n b \n\n")))
    assert console.read_prompt("-") == "a\n b \n"
    assert console.read_prompt("a\n") == "a\n"


def test_standard_input_that_is_no_text_is_an_error(run, folder, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"w1 \xff")))
    code, _, err = run("generate", "-", "--model", folder, *SMALL)
    assert code == 2 and "standard input is not UTF-8 at byte 3" in err and err.count("\n") == 1


def test_every_option_reaches_generate(run, folder, monkeypatch):
    seen = {}

    def spy(model, prompt, sampler, on_step=None, **options):
        seen.update(options, sampler=sampler)
        raise ValueError("enough")

    monkeypatch.setattr(dlmdecode, "generate", spy)
    argv = "--sampler threshold,threshold=0.5 --gen-length 24 --block-length none"
    argv += " --steps 12 --temperature 0.5 --cache none --cfg-scale 1.5 --seed 3 --eos ignore"
    argv += " --confidence-dtype float64"
    run("generate", PROMPT, "--model", folder, *argv.split())
    assert seen == {
        "sampler": "threshold,threshold=0.5",
        "max_new_tokens": 24,
        "block_length": None,
        "steps": 12,
        "temperature": 0.5,
        "cache": "none",
        "cfg_scale": 1.5,
        "seed": 3,
        "eos": "ignore",
        "confidence_dtype": "float64",
    }


def test_options_that_are_not_given_stay_the_librarys_defaults(run, folder, monkeypatch):
    seen = {}

    def spy(model, prompt, sampler, on_step=None, **options):
        seen.update(options)
        raise ValueError("enough")

    monkeypatch.setattr(dlmdecode, "generate", spy)
    run("generate", PROMPT, "--model", folder)
    assert seen == {}


def test_json_is_one_object_with_text_and_counts(run, folder):
    _, out, _ = run("generate", PROMPT, "--model", folder, "--json", *SMALL)
    text = run("generate", PROMPT, "--model", folder, *SMALL)[1]
    record = json.loads(out)
    assert record["text"] + "\n" == text
    assert record["nfe"] == record["stats"]["nfe"] > 0
    assert record["sampler"] == "threshold"


HOSTILE = "ok\x1b]0;owned\x07\x1b[2J\u202e\x9b2J\r\x7f end é ❤\u200d🔥"
HARMLESS = "ok�]0;owned��[2J��2J�� end é ❤\u200d🔥"


class Hostile:
    """A tokenizer whose texts would move a cursor, set a title or turn the writing around."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, *args, **kwargs):
        return self.tokenizer(*args, **kwargs)

    def decode(self, ids, **kwargs):
        return HOSTILE


@pytest.fixture
def hostile(folder, monkeypatch):
    """Whatever is loaded speaks through a hostile tokenizer."""
    model = dlmdecode.load(folder, device="cpu")
    model.tokenizer = Hostile(model.tokenizer)
    monkeypatch.setattr(dlmdecode, "load", lambda *args, **kwargs: model)
    monkeypatch.setattr("dlmdecode.models.domain.advise", lambda *args: None)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.parametrize("kind", ["generate", "trace"])
def test_no_control_character_of_a_model_reaches_a_terminal(hostile, monkeypatch, kind):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    assert main([kind, PROMPT, "--raw", *SMALL[:4]]) == 0
    view = r"\r(\x1b\[1A\x1b\[2K)+|\x1b\[\?25[hl]|\x1b\[[012]?m"  # up, erase, cursor, bold, dim
    shown = re.sub(view, "", screen.getvalue())
    assert not set(shown) & set("\x1b\x07\u202e\x9b\r\x7f")
    assert kind == "trace" or f"{HARMLESS}\n" in shown


def test_a_pipe_gets_the_text_as_it_is(run, hostile):
    assert run("generate", PROMPT, "--raw", *SMALL[:4])[1] == f"{HOSTILE}\n"
    record = json.loads(run("generate", PROMPT, "--raw", "--json", *SMALL[:4])[1])
    assert record["text"] == HOSTILE


def test_the_steps_of_speculation_show_no_control_characters(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    for out in (Terminal(), io.StringIO()):
        Progress(Hostile(None), out).show(Verification(0, 3, 5, (), 0, (1,), (), ()))
        assert out.getvalue() == f"  3   0 of  0   +[{HARMLESS}]\n"


def test_an_error_shows_no_control_characters(run):
    code, _, err = run("generate", PROMPT, "--model", "no\x1b[2Jsuch\u202e")
    assert code == 2 and not set(err) & set("\x1b\u202e") and err.count("\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_of_few_characters_gets_replacements(hostile, monkeypatch, encoding):
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", screen)
    assert main(["generate", PROMPT, "--raw", *SMALL[:4]]) == 0
    assert screen.buffer.getvalue().decode(encoding).endswith("?\n")


# trace


def test_trace_prints_a_line_for_each_step(run, folder):
    _, out, _ = run("trace", PROMPT, "--model", folder, "--sampler", "vanilla", *SMALL)
    lines = out.splitlines()
    assert 0 < len(lines) <= 16
    assert lines[0].startswith("step   1  NFE   1  block   0–7 ")


def test_trace_as_json_replays_to_the_text(run, folder):
    argv = ["--model", folder, "--sampler", "threshold,threshold=0.3", *SMALL]
    _, out, _ = run("trace", PROMPT, "--json", *argv)
    steps = [json.loads(line) for line in out.splitlines()]
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    tokens = {}
    for step in steps:
        tokens |= {change["position"]: change["token"] for change in step["changed"]}
    assert sorted(tokens) == list(range(16))
    model = dlmdecode.load(folder)
    text = model.tokenizer.decode([tokens[i] for i in range(16)], skip_special_tokens=True)
    assert text + "\n" == run("generate", PROMPT, *argv)[1]
    assert steps[-1]["masks_left"] == 0


# samplers


def test_samplers_lists_every_sampler_with_slots_options_and_paper(run):
    code, out, _ = run("samplers")
    assert code == 0
    for name in dlmdecode.list_samplers():
        assert f"\n{name}\t" in out
    assert "early=7.5" in out and "arXiv 2508.19982" in out and "stops" in out


def test_samplers_by_name_shows_details(run):
    _, out, _ = run("samplers", "prophet")
    assert "prophet,early=7.5" in out
    assert "where nothing else chooses positions: vanilla" in out


def test_samplers_as_json_is_one_object_a_line(run):
    _, out, _ = run("samplers", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["name"] for record in records] == dlmdecode.list_samplers()
    assert all(record["help"] and record["slots"] for record in records)


def test_the_matrix_of_compositions_agrees_with_building_them(run):
    names = ["prophet", "threshold", "vanilla"]
    _, out, _ = run("samplers", "--compose", *names)
    assert out == (
        "            1   2   3\n"
        "prophet         +   +  1\n"
        "threshold   +       a  2\n"
        "vanilla     +   a      3\n"
        "\n"
        "a  two recipes both set 'select' (threshold+vanilla)\n"
    )


def test_reasons_are_lettered_beyond_z():
    assert [catalogue.letter(i) for i in (0, 25, 26, 27, 52)] == ["a", "z", "aa", "ab", "ba"]


# errors


ERRORS = {
    "an unknown sampler": (["--sampler", "profet"], "did you mean 'prophet'"),
    "an unknown option": (["--sampler", "threshold,treshold=1"], "did you mean 'threshold'"),
    "a bad value": (["--temperature", "nan"], "temperature=nan"),
    "a bad length": (["--max-new-tokens", "0"], "max_new_tokens=0"),
    "beyond the context": (["--max-new-tokens", "9984"], "give at most"),
    "no number": (["--steps", "many"], "steps='many': give a whole number"),
    "half a number": (["--seed", "1.5"], "seed=1.5"),
    "steps that nothing reads": (["--steps", "4"], "steps=4: threshold follows no schedule"),
    "an argument of another library": (
        ["--sampler", "threshold,max_tokens=3"],
        "is max_new_tokens",
    ),
    "no assignment": (["--sampler", "prophet,early"], "not of the form option=value"),
    "an unknown argument": (["--samplr", "x"], "unrecognized arguments"),
    "no model": (["--model", "tinny"], "no model 'tinny'"),
}


@pytest.mark.parametrize("argv, message", ERRORS.values(), ids=ERRORS)
def test_an_error_is_one_line_with_the_fix_and_exit_code_2(run, folder, argv, message):
    code, out, err = run("generate", PROMPT, "--model", folder, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("dlmdecode: error: ") and err.count("\n") == 1
    assert message in err


def test_a_port_that_there_cannot_be_is_an_error(run):
    pytest.importorskip("uvicorn")
    code, _, err = run("serve", "--port", "70000")
    assert code == 2 and "port=70000: give 0" in err


def test_a_server_with_an_empty_key_is_an_error(run, monkeypatch):
    pytest.importorskip("uvicorn")
    code, _, err = run("serve", "--api-key", "")
    assert code == 2 and "api_key=''" in err and "leave it" in err
    monkeypatch.setenv("DLMDECODE_API_KEY", "")
    assert run("serve")[0] == 2


def test_a_server_looks_auto_up_once(run, folder, monkeypatch):
    pytest.importorskip("uvicorn")
    made = []
    monkeypatch.setattr("dlmdecode.serve.app.create_app", lambda *given, **_: made.append(given[1]))
    monkeypatch.setattr("dlmdecode.serve.server.serve", lambda *_: None)
    assert run("serve", "--model", folder, "--sampler", "auto", "--max-new-tokens", "8")[0] == 0
    assert made[0].sampler == "threshold,threshold=0.99"
    assert made[0].options == {"max_new_tokens": 8}


def test_an_empty_prompt_is_a_prompt(run, folder):
    code, out, _ = run("generate", "", "--raw", "--model", folder, "--max-new-tokens", "8")
    assert code == 0 and out


def test_several_texts_of_a_prompt_are_lines_or_objects(run, folder):
    how = ("--model", folder, "--max-new-tokens", "8", "--temperature", "2", "--json")
    code, out, _ = run("generate", "w1", *how, "--num-return-sequences", "3")
    texts = [json.loads(line)["text"] for line in out.splitlines()]
    assert code == 0 and len(texts) == len(set(texts)) == 3
    code, _, err = run("trace", "w1", *how, "--num-return-sequences", "3")
    assert code == 2 and "single text" in err


def test_options_of_transformers_are_options_of_the_command(run, folder):
    how = ("w1", "--model", folder, "--max-new-tokens", "8", "--json", "--raw")
    how += ("--temperature", "3", "--seed", "2", "--eos", "ignore")
    _, plain, _ = run("generate", *how)
    words = json.loads(plain)["text"].split()
    code, out, _ = run("generate", *how, "--stop-strings", f'["{words[1]}", "no such word"]')
    assert code == 0 and json.loads(out)["text"].split() == words[:1]
    code, out, _ = run("generate", *how, "--suppress-tokens", words[0][1:])
    assert code == 0 and words[0] not in json.loads(out)["text"].split()


@pytest.mark.parametrize("argv", [[], ["generat"], ["generate"], ["bench"], ["bench", "x"]])
def test_an_incomplete_command_is_an_error(run, argv):
    code, _, err = run(*argv)
    assert code == 2 and err.count("\n") == 1


def test_an_optional_part_that_is_missing_breaks_no_other_command(run, folder, monkeypatch):
    whole = cli.importlib.import_module

    def missing(name, *more):
        if name == "dlmdecode.commands.evaluate":
            raise ModuleNotFoundError(f"No module named {name!r}", name="left_out")
        return whole(name, *more)

    monkeypatch.setattr(cli.importlib, "import_module", missing)
    code, _, err = run("eval", "report")
    assert code == 2 and "needs the package 'left_out'" in err
    assert run("generate", PROMPT, "--model", folder, *SMALL)[0] == 0
    assert run("--help")[0] == 0


def test_interrupting_is_one_line(run, folder, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Flight, "advance", interrupted)
    assert run("generate", PROMPT, "--model", folder, *SMALL) == (
        130,
        "",
        "dlmdecode: interrupted\n",
    )


def command(*argv, **options):
    argv = [sys.executable, "-m", "dlmdecode", *map(str, argv)]
    return subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_a_reader_that_leaves_early_is_no_error(folder):
    process = command("trace", PROMPT, "--model", folder, "--max-new-tokens", 256)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 0
    process.stderr.close()


@pytest.mark.parametrize("argv", [["generate", "--help"], ["samplers"]])
def test_a_reader_that_has_left_is_no_error(argv):
    process = command(*argv)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(60) == 0
    process.stderr.close()


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["samplers", ">&-"], 0),
        (["samplers", "nothing", ">&-", "2>&-"], 2),
        (["generate", "-", "<&-"], 0),
        (["chat", "<&-"], 0),
        (["generate", "-", "<&-", ">&-", "2>&-"], 0),
    ],
)
def test_a_stream_that_is_closed_is_an_empty_one(folder, argv, code):
    *words, last = argv
    given = [*words, "--model", folder, *SMALL] if words[0] in ("generate", "chat") else words
    given = [word for word in given if "&-" not in word]
    closed = [word for word in argv if "&-" in word]
    line = " ".join([shlex.join([sys.executable, "-m", "dlmdecode", *given]), *closed])
    process = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert process.returncode == code and "Traceback" not in process.stderr


def test_infill_without_a_gap_says_how_one_is_given(run, folder):
    code, _, err = run("infill", "w1", "w2", "--model", folder)
    assert code == 2 and "PIECE=" in err and "tokens of a gap" in err


def test_the_module_is_the_command():
    process = command("--version")
    assert process.communicate(timeout=60) == (f"dlmdecode {dlmdecode.__version__}\n", "")


# values


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", 3),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-3", 0.001),
        ("none", None),
        ("None", None),
        ("true", True),
        ("False", False),
        ("entropy", "entropy"),
        ("", ""),
        ("1,2", (1, 2)),
        ("a,0.5,none", ("a", 0.5, None)),
        ('["\\n", ","]', ("\n", ",")),
        ('{"3": "#### 4"}', {3: "#### 4"}),
        ('"7"', "7"),
        ("[broken", "[broken"),
    ],
)
def test_the_value_of_an_option_is_what_it_looks_like(text, value):
    parsed = value_of(text)
    assert parsed == value
    assert type(parsed) is type(value)


# the embedded models


def test_no_problem_of_its_kind_is_foreign_to_the_embedded_model():
    for split in SPLITS:
        told = [one for one in (problem(seed, split) for seed in range(300)) if tells_all(one)]
        assert len(told) > 270
        asked = [one.question for one in told + [exercise(seed, split) for seed in range(300)]]
        foreign = [question for question in asked if is_foreign(question)]
        # training has words that nobody has heard of, in requests too
        assert len(foreign) <= (len(asked) // 100 if split == "train" else 0)


def tells_all(one):
    """Whether a problem tells its numbers as such: of others the embedded models are unsure."""
    forms = one.template.split(" | ")
    return "{part}" not in one.template and not any(forms[0] in known for known in KNOWN.values())


@pytest.mark.parametrize(
    "prompt",
    [
        "Why is the sky blue?",
        "Write 3 lines about love and longing.",
        "class Matrix: rows = 2, columns = 3",
        "Wie heißt die Hauptstadt von Frankreich, 2 Wörter?",
        "空はなぜ青いのですか",
        "",
        "How many people lived in France in 1990 and in 2020?",
        "What is 123456 times 789?",
        "What are the 7 wonders of the world?",
        "Sort the 3 numbers 5, 2 and 9.",
        "Tell me a story about 3 bears and 4 wolves.",
        "def add(a, b):\n",
        "def double(x):\n    return",
        'def double(x):\n    """Double the number."""\n',
    ],
)
def test_other_prompts_are_foreign_to_the_embedded_model(prompt):
    assert is_foreign(prompt)


@pytest.mark.parametrize(
    "command, option", [("generate", "--model"), ("trace", "--model"), ("speculate", "--verifier")]
)
def test_a_foreign_prompt_brings_a_line_about_the_embedded_model(run, command, option):
    code, _, err = run(command, "Why is the sky blue?", "--max-new-tokens", 32)
    (line,) = [line for line in err.splitlines() if "note" in line]
    assert code == 0 and "arithmetic word problems" in line and option in line
    _, _, err = run(command, problem(0).question, "--max-new-tokens", 32)
    assert "note" not in err


def test_caches_are_listed_with_what_they_were_verified_against(capsys):
    assert main(["caches"]) in (None, 0)
    out = capsys.readouterr().out
    lines = {line.split("\t")[0]: line for line in out.splitlines() if line}
    assert "authors' code" in lines["dkv"] and "arXiv 2505.15781" in lines["dkv"]
    assert "Elastic-Cache" in out and "Dynamic-dLLM" in out
