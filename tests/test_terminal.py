"""What a terminal is shown: the canvas as it fills, and tables, on screens of every size."""

import io
import os
import re
import sys
import unicodedata
from types import SimpleNamespace

import pytest
from test_cli import PROMPT, SMALL, Terminal, folder, run  # noqa: F401
from toy import micro

import dlmdecode
from dlmdecode.commands import caches, catalogue, models
from dlmdecode.commands.canvas import CanvasView
from dlmdecode.commands.cli import main
from dlmdecode.tables import Table, show_report, show_table

TEXTS = ("a longer word ", "汉字汉字", "🔥❤\u200d🔥\ufe0f", "two\nlines", None)
WIDTHS = (40, 57, 80, 120, 200)
CONTROL = re.compile(r"\x1b\[\?25[hl]|\x1b\[(\d*)([AK])|\x1b\[[\d;]*m")
COLOUR = re.compile(r"\x1b\[(\d+;)*[349]\d[;m]")


def columns(text):
    """How many a text takes, by Unicode's tables and not by rich's."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return wide + sum(not unicodedata.combining(char) for char in text)


class Screen(Terminal):
    """A terminal that does what it is told and, where it becomes narrower, breaks its lines."""

    def __init__(self, monkeypatch, width=80, height=24):
        super().__init__()
        self.monkeypatch, self.lines, self.at = monkeypatch, [""], 0
        self.resize(width, height)

    def resize(self, width, height=24):
        size = os.terminal_size((width, height))
        self.monkeypatch.setattr(os, "get_terminal_size", lambda *_: size)
        for at in reversed(range(len(self.lines))):
            parts = self.broken(self.lines[at], width)
            self.lines[at : at + 1] = parts
            self.at += len(parts) - 1 if at < self.at else 0
        self.width, self.height = width, height

    @staticmethod
    def broken(line, width):
        parts = [""]
        for char in line:
            if columns(parts[-1] + char) > width:
                parts.append("")
            parts[-1] += char
        return parts

    def write(self, text):
        super().write(text)
        at = 0
        for control in CONTROL.finditer(text):
            self.put(text[at : control.start()])
            at = control.end()
            if control[2] == "A":
                self.at -= int(control[1])
                assert self.at >= 0
            elif control[2] == "K":
                self.lines[self.at] = ""
        self.put(text[at:])
        return len(text)

    def put(self, text):
        for char in text:
            assert unicodedata.category(char) != "Cc" or char in "\r\n", repr(char)
            if char == "\n":
                self.at += 1
                self.lines += [""] * (self.at == len(self.lines))
            elif char != "\r":
                self.lines[self.at] += char

    @property
    def shown(self):
        return "\n".join(self.lines).rstrip("\n").split("\n")


@pytest.fixture
def screen(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    return lambda *size: Screen(monkeypatch, *size)


class Speaker:
    """A tokenizer in which each token is the same text."""

    def __init__(self, text):
        self.text = text

    def decode(self, ids, **_):
        return self.text * len(ids)


@pytest.fixture(scope="module")
def steps():
    """The steps of a toy: 32 masks in blocks of 8, or as the options say."""
    done = {}

    def steps(sampler="vanilla", **options):
        key = (sampler, *sorted(options.items()))
        options = {"max_new_tokens": 32, "block_length": 8, "eos": "ignore"} | options
        if key not in done:
            done[key] = list(dlmdecode.stream(micro("llada"), [3, 4], sampler, **options))
        return done[key]

    return steps


def pictures(screen, steps, text="x", watch=lambda number: None):
    """The lines of the screen after each step, where every token is this text, or None an id."""
    toy, tokenizer = micro("llada"), None if text is None else Speaker(text)
    model = SimpleNamespace(mask_id=toy.mask_id, eos_ids=toy.eos_ids, tokenizer=tokenizer)
    view, found = CanvasView(model, screen), []
    for step in steps:
        watch(step.number)
        view(step)
        found.append(list(screen.shown))
    view.clear()
    return found


# the canvas


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "text", ["a longer word ", "汉字汉字", "🔥❤\u200d🔥\ufe0f", "two\nlines", None]
)
def test_a_picture_fits_its_screen_and_shows_the_open_block(screen, steps, text, width):
    small = screen(width, 5)
    for lines in pictures(small, steps(), text)[:-1]:
        assert len(lines) <= 4
        assert max(map(columns, lines)) < width
        assert "▐" in "".join(lines) and "NFE" in lines[-1]
    assert small.shown == [""]


def test_a_terminal_that_changes_its_size_keeps_nothing_of_old_pictures(screen, steps):
    small = screen(120, 30)
    small.write("before\n")
    sizes = {5: 40, 10: 200, 15: 57, 25: 41, 26: 40}
    found = pictures(
        small, steps(), "a longer word ", lambda n: n in sizes and small.resize(sizes[n], 30)
    )
    assert len(found) == 32
    assert all(lines[0] == "before" and "".join(lines).count("NFE") == 1 for lines in found)
    assert small.shown == ["before"]


def test_the_bounds_of_the_open_block_are_marked(screen, steps):
    first, *_, last = pictures(screen(), steps())
    assert first[0].replace("x", "░") == f"▐{'░' * 8}▌{'░' * 24}" and first[0].count("x") == 1
    assert last[0] == f"{'x' * 24}▐{'x' * 8}▌"
    whole, *_ = pictures(screen(), steps(block_length=32))
    assert "▐" not in whole[0]


def test_the_status_names_the_parts_that_wrote_and_how_settled_the_rest_is(screen, steps):
    _, second, *_ = pictures(screen(), steps("threshold", threshold=0.99))
    rate = r"[\d.]+ tokens per forward"
    assert re.fullmatch(rf"block 0–7 · NFE 2 · {rate} · \d+% settled · MostConfident 1", second[-1])


def test_doubtful_tokens_have_a_colour_and_masks_outside_the_block_are_dim(screen, steps):
    shown = screen()
    pictures(shown, steps())
    assert "\x1b[1;32mx\x1b[0m" in shown.getvalue()
    assert "\x1b[31mx\x1b[0m" in shown.getvalue()  # a random model is never sure
    assert f"\x1b[2m{'░' * 24}\x1b[0m" in shown.getvalue()


def test_no_color_leaves_colours_out_and_the_rest_as_it_is(screen, steps, monkeypatch):
    coloured, plain = screen(), screen()
    pictures(coloured, steps())
    monkeypatch.setenv("NO_COLOR", "1")
    pictures(plain, steps())
    assert COLOUR.search(coloured.getvalue()) and not COLOUR.search(plain.getvalue())
    assert CONTROL.sub("", plain.getvalue()) == CONTROL.sub("", coloured.getvalue())


@pytest.mark.parametrize("width", WIDTHS)
def test_after_a_run_the_text_stands_alone_and_whole(run, folder, screen, width, monkeypatch):  # noqa: F811
    piped = run("generate", PROMPT, "--model", folder, *SMALL)[1]
    shown = screen(width)
    monkeypatch.setattr(sys, "stdout", shown)
    assert main(["generate", PROMPT, "--model", folder, *SMALL]) == 0
    assert "░" in shown.getvalue()
    text = piped.rstrip("\n")
    assert "".join(shown.shown).startswith(f"{text}16 tokens · NFE ")
    assert shown.getvalue().endswith("\x1b[0m\n")


def test_the_cursor_is_there_again_after_an_interruption(folder, screen, monkeypatch):  # noqa: F811
    def stopped(view, step):
        raise KeyboardInterrupt

    shown = screen()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setattr(CanvasView, "status", stopped)
    assert main(["generate", PROMPT, "--model", folder, *SMALL]) == 130
    assert shown.getvalue().count("\x1b[?25l") == shown.getvalue().count("\x1b[?25h")


def test_a_dumb_terminal_gets_plain_text(folder, monkeypatch):  # noqa: F811
    monkeypatch.setenv("TERM", "dumb")
    for argv in (["generate", PROMPT, "--model", folder, *SMALL], ["samplers"]):
        shown = Terminal()
        monkeypatch.setattr(sys, "stdout", shown)
        assert main(argv) == 0
        assert shown.getvalue() and not set(shown.getvalue()) & set("\x1b\r░")


def test_what_a_model_writes_is_neither_markup_nor_control(screen, steps):
    hostile = "[red]a[/red]\x1b]0;owned\x07\x1b[2J\u202e\x9b2J\x7f:smile:[link=x]"
    *_, last = pictures(screen(200), steps(max_new_tokens=2, block_length=2), hostile)
    assert last[0] == "[red]a[/red]�]0;owned��[2J��2J�:smile:[link=x]" * 2


# tables

TABLES = {
    "samplers": catalogue.table,
    "caches": caches.listing,
    "models": models.listing,
    "partners": catalogue.partners,
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_a_table_fits_its_screen_and_cuts_no_word(screen, monkeypatch, width, name):
    shown, table = screen(width), TABLES[name]()
    monkeypatch.setattr(sys, "stdout", shown)
    show_table(table)
    assert max(map(columns, shown.shown)) <= width
    words = set(" ".join(shown.shown).split())
    cells = {word for row in table.rows for cell in row for word in cell.split()}
    assert {word for word in cells if columns(word) <= 24} <= words


@pytest.mark.parametrize("name", ["samplers", "caches", "models"])
def test_a_table_in_a_pipe_is_a_line_a_row_with_tabs_between_the_cells(run, name):  # noqa: F811
    code, out, _ = run(name)
    head, *rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and "\x1b" not in out
    assert len(rows) == len(TABLES[name]().rows)
    assert {len(row) for row in rows} == {len(head)}


def test_the_matrix_of_compositions_is_a_list_where_it_does_not_fit(screen, monkeypatch):
    for width, is_matrix in ((40, False), (200, True)):
        shown = screen(width)
        monkeypatch.setattr(sys, "stdout", shown)
        assert main(["samplers", "--compose"]) == 0
        assert max(map(columns, shown.shown[:-40])) <= width
        assert ("combines with" not in shown.getvalue()) == is_matrix


def test_a_report_is_markdown_in_a_pipe_and_laid_out_on_a_terminal(screen, monkeypatch, capsys):
    report = ["## A run", Table(["name", "%"], [["a", "1.0"], ["b", "10.0"]], numeric=True)]
    show_report(report)
    piped = capsys.readouterr().out
    assert piped == "## A run\n\n| name | % |\n|---|---:|\n| a | 1.0 |\n| b | 10.0 |\n"
    shown = screen(40)
    monkeypatch.setattr(sys, "stdout", shown)
    show_report(report)
    assert "\x1b[1mA run\x1b[0m" in shown.getvalue() and "|" not in shown.getvalue()
    assert [line.split() for line in shown.shown if "0" in line] == [["a", "1.0"], ["b", "10.0"]]


def test_a_cell_is_neither_markup_nor_control(screen, monkeypatch):
    shown = screen(40)
    monkeypatch.setattr(sys, "stdout", shown)
    show_table(Table(["name"], [["[red]x[/]\x1b[2J:smile:"]]))
    assert "[red]x[/]�[2J:smile:" in shown.shown[1]


def test_a_pipe_gets_no_control_code_of_a_report(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    show_report(["## A run", Table(["name"], [["x"]])])
    assert "\x1b" not in out.getvalue()
