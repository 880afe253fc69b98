"""`dlmdecode generate --input FILE --output FILE`: a line a prompt, going on where it ended."""

import json
import os

import pytest
from test_cli import PROMPT, SMALL, folder, run  # noqa: F401

import dlmdecode
from dlmdecode.commands import batch

PROMPTS = ["w1 w2", {"prompt": "w3"}, {"prompt": [{"role": "user", "content": "w4 w5 w6"}]}]


@pytest.fixture
def files(tmp_path):
    source, target = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS))
    return source, target


@pytest.fixture
def decode(run, folder, files):  # noqa: F811
    def decode(*argv):
        source, target = files
        code, out, err = run(
            "generate", "--input", source, "--output", target, "--model", folder, *SMALL, *argv
        )
        lines = target.read_text().splitlines() if target.exists() else []
        return code, out, err, {r["index"]: r for r in map(json.loads, lines)}

    return decode


def alone(folder, text):  # noqa: F811
    messages = [{"role": "user", "content": text}]
    model = dlmdecode.load(folder)
    return dlmdecode.generate(model, messages, max_new_tokens=16, block_length=8)


def test_each_prompt_is_a_line_with_its_single_runs_text(decode, folder):  # noqa: F811
    code, out, err, records = decode("--batch-size", "2")
    assert (code, out, err) == (0, "", "") and sorted(records) == [0, 1, 2]
    for index, text in enumerate(("w1 w2", "w3", "w4 w5 w6")):
        same = alone(folder, text)
        expected = {"index": index, "text": same.texts[0], "nfe": same.nfe[0]}
        assert records[index] == expected | {"new_tokens": same.new_tokens[0]}


def test_the_same_command_goes_on_where_it_ended(decode, files, monkeypatch):
    _, _, _, whole = decode()
    _, target = files
    first, second, third = target.read_text().splitlines(keepends=True)
    target.write_text(first + second[:12])  # torn
    left, real = [], batch.decoded

    def spy(engine, prompts, indices, template):
        left.extend(indices)
        return real(engine, prompts, indices, template)

    monkeypatch.setattr(batch, "decoded", spy)
    code, _, _, records = decode()
    assert code == 0 and records == whole
    assert sorted(left + [json.loads(first)["index"]]) == [0, 1, 2]
    left.clear()
    assert decode()[0] == 0 and left == []


def test_equal_prompts_have_the_noise_of_the_whole_input_when_a_run_goes_on(decode, files):
    source, target = files
    source.write_text('"w1"\n' * 3)
    hot = ("--temperature", "5", "--seed", "0")
    _, _, _, whole = decode(*hot)
    assert len({record["text"] for record in whole.values()}) == 3
    lines = target.read_text().splitlines(keepends=True)
    target.write_text("".join(line for line in lines if '"index": 0' in line))
    assert decode(*hot)[3] == whole


def test_a_run_goes_on_with_the_same_input_and_settings_alone(decode, files):
    source, target = files
    assert decode("--stop-strings", "#")[0] == 0
    target.write_text(target.read_text().splitlines(keepends=True)[0])
    assert decode("--stop-strings", "#")[0] == 0
    target.unlink()
    assert decode()[0] == 0
    target.write_text(target.read_text().splitlines(keepends=True)[0])
    for more in (("--temperature", "1"), ("--sampler", "vanilla"), ("--raw",), ("--json",)):
        code, _, err, _ = decode(*more)
        assert code == 2 and more[0].strip("-") in err
    source.write_text(source.read_text().replace("w1", "w9"))
    code, _, err, _ = decode()
    assert code == 2 and "input_sha256" in err and "give another --output" in err


def test_a_prompt_that_cannot_be_decoded_is_a_line_and_the_others_go_on(decode, files):
    source, _ = files
    with open(source, "a") as file:
        file.write(json.dumps("w1 " * 20000) + "\n")
    code, _, _, records = decode()
    assert code == 0 and "text" in records[0] and "give at most" in records[3]["error"]


@pytest.mark.parametrize("odd", [["a", "b"], {"prompt": [[5], [6]]}, [None], [{}], [1.5]])
def test_a_line_that_is_no_single_prompt_is_its_own_error(decode, files, odd):
    source, _ = files
    with open(source, "a") as file:
        file.write(json.dumps(odd) + "\n")
    code, _, _, records = decode()
    assert code == 0 and "prompt" in records[3]["error"]
    assert all("text" in records[index] for index in range(3))


def test_an_output_that_cannot_be_read_again_is_refused(run, folder, files):  # noqa: F811
    pipe = files[0].with_name("pipe")
    os.mkfifo(pipe)
    code, _, err = run("generate", "--input", files[0], "--output", pipe, "--model", folder)
    assert code == 2 and "--output" in err and "give a regular file" in err


def test_a_prompt_may_hold_other_separators_than_line_feeds(tmp_path):
    prompts = ["a\u2028b", "c\u0085d"]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(p, ensure_ascii=False) for p in prompts), "utf-8")
    assert list(batch.read_prompts(path)) == prompts
    path.write_text("")
    assert list(batch.read_prompts(path)) == []


def test_several_texts_of_a_prompt_are_a_list(decode):
    _, _, _, records = decode("--num-return-sequences", "2", "--temperature", "1")
    assert all(len(record["text"]) == len(record["nfe"]) == 2 for record in records.values())


BAD = {
    "no output": ((), None, "say where the texts"),
    "a prompt beside": ((PROMPT,), "out", "leave it out beside --input"),
    "a trace": (("--trace", "x"), "out", "it is of a single prompt"),
}


@pytest.mark.parametrize("argv, target, message", BAD.values(), ids=BAD)
def test_what_does_not_go_with_input_is_refused(run, files, argv, target, message):  # noqa: F811
    output = () if target is None else ("--output", files[1])
    code, _, err = run("generate", "--input", files[0], *output, *argv)
    assert code == 2 and message in err and not files[1].exists()


@pytest.mark.parametrize("line", ["7", '{"text": "w1"}', "{", '{"prompt": []}'])
def test_a_line_that_is_no_prompt_is_named(decode, files, line):
    with open(files[0], "a") as file:
        file.write(line + "\n")
    code, _, err, _ = decode()
    assert code == 2 and "line 4" in err


@pytest.mark.parametrize("content", ["hello", "hello\n", '{"index": 9}\n', '{"index": 0}\nbye'])
def test_a_foreign_output_is_left_alone(decode, files, content):
    files[1].write_text(content)
    with pytest.raises(ValueError, match="--output"):
        batch.finished(files[1], 3)
    assert files[1].read_text() == content


def test_output_of_one_prompt_is_its_text(run, folder, tmp_path):  # noqa: F811
    target = tmp_path / "text"
    argv = ("generate", PROMPT, "--model", folder, *SMALL)
    code, out, _ = run(*argv, "--output", target)
    assert code == 0 and target.read_text() == out
    assert run(*argv, "--batch-size", "2")[0] == 2
    assert run("generate")[0] == 2
