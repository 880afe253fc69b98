"""Chat templates are programs from whoever made the checkpoint: bounded in time, memory, output."""

import copy
import os

import pytest
from toy import talking

import dlmdecode
from dlmdecode.prompts import chat_template, encode_prompts

USER = [{"role": "user", "content": "w1 w2"}]


def speaking(template):
    """The toy tokenizer with another chat template."""
    tokenizer = copy.copy(talking().tokenizer)
    tokenizer.chat_template = template
    return tokenizer


def test_a_chat_is_what_the_template_writes():
    tokenizer = talking().tokenizer
    expected = tokenizer.apply_chat_template(USER, add_generation_prompt=True, tokenize=False)
    assert chat_template.render(tokenizer, USER) == expected == "<user> w1 w2 <assistant>"


def test_an_open_turn_is_left_open():
    messages = [*USER, {"role": "assistant", "content": "w3"}]
    template = "{% for m in messages %}{{ m['content'] }};{% endfor %}"
    assert chat_template.render(speaking(template), messages, begin_turn=False) == "w1 w2;w3"


NESTED = "{% for i in range(99999) %}{% for j in range(99999) %}BODY{% endfor %}{% endfor %}"


@pytest.mark.parametrize("body", ["", "x"])
def test_a_template_without_end_is_stopped(body, monkeypatch):
    monkeypatch.setattr(chat_template, "SECONDS", 0.5)
    with pytest.raises(ValueError, match="chat template takes more than 0.5 seconds"):
        chat_template.render(speaking(NESTED.replace("BODY", body)), USER)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 10**10 }}",
        "{{ '%99999999999d' % 1 }}",
        "{{ 'x'|center(10**10) }}",
        "{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}"
        "{% endfor %}",
    ],
)
def test_a_template_that_would_fill_the_memory_is_stopped(template):
    with pytest.raises(ValueError, match="chat template takes more than 512 MiB"):
        chat_template.render(speaking(template), USER)


def test_a_template_that_writes_without_measure_is_refused():
    with pytest.raises(ValueError, match="writes 3000000 characters"):
        chat_template.render(speaking("{{ 'x' * 3000000 }}"), USER)


def test_long_messages_are_no_long_output():
    long = [{"role": "user", "content": "w1 " * 2**20}]
    assert (
        len(chat_template.render(speaking("{{ messages[0]['content'] * 2 }}"), long)) == 6 * 2**20
    )


@pytest.mark.parametrize(
    "template, says",
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for %}", "Expected"),
        ("{{ nothing.at.all }}", "undefined"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
@pytest.mark.parametrize("forks", [True, False])
def test_a_template_that_fails_says_why(template, says, forks, monkeypatch):
    monkeypatch.setattr(chat_template, "FORKS", forks and chat_template.FORKS)
    with pytest.raises(ValueError, match=f"does not take the messages: .*{says}"):
        chat_template.render(speaking(template), USER)


def test_no_process_and_no_file_is_left_behind(monkeypatch):
    monkeypatch.setattr(chat_template, "SECONDS", 0.2)
    before = sorted(os.listdir("/proc/self/fd"))
    chat_template.render(talking().tokenizer, USER)
    with pytest.raises(ValueError, match="seconds"):
        chat_template.render(speaking(NESTED), USER)
    assert sorted(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_generate_refuses_it_before_any_forward(monkeypatch):
    monkeypatch.setattr(chat_template, "SECONDS", 0.2)
    model = copy.copy(talking())
    model.tokenizer = speaking(NESTED)
    with pytest.raises(ValueError, match="chat template takes more than"):
        dlmdecode.generate(model, USER, max_new_tokens=8)


@pytest.mark.parametrize("said", ["hi \ue000999\ue000", "\ue0000\ue000", "\ue001\ue0001\ue001"])
def test_characters_of_private_use_are_text(said):
    model = dlmdecode.load("tiny")
    given = encode_prompts([{"role": "user", "content": said}], None, model)[0].tolist()
    assert model.tokenizer.decode(given).count(said) == 1
