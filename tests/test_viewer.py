"""The page of a trace, in a headless Chromium: scrubbing, hovering, side by side, hostile text."""

import json
import re

import pytest
from browser import Browser, needs_chromium
from toy import micro, prompts

import dlmdecode
from dlmdecode.commands.cli import main
from dlmdecode.trace import Run, read
from dlmdecode.trace.view import page

HOSTILE = "</script><img src=x onerror=\"document.title='caught'\"><!--\u2028\u202e"


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


def run_of(length, steps, prompt="a question", word="w"):
    """A run that writes a position a step, from the right, and takes the first back once."""
    run = Run(
        {"kind": "generate", "sampler": "by hand", "options": {}, "mask_id": 0, "eos_ids": []}
    )
    run.header["rows"] = [{"prompt": prompt, "length": length}]
    run.vocabulary = {i: f"{word}{i} " for i in range(1, 9)}
    for number in range(1, steps + 1):
        at = (length - number) % length
        writes = {"row": [0], "position": [at], "token": [1 + at % 8], "rule": [f"{word}-rule"]}
        writes |= {"confidence": [0.5], "margin": [1.25], "entropy": [None]}
        run.steps.append(
            {
                "step": number,
                "seconds": number / 10,
                "refreshes": 0,
                "rows": [0],
                "nfe": [number],
                "writes": writes,
            }
            | {"lo": [0], "hi": [length], "stop": [length], "given": {}}
            | {"confidence": ["k" * length]}
            | {"drafts": {"row": [0], "position": [at], "token": [2]}}
        )
    run.end = {"new_tokens": [length]}
    return run


@pytest.fixture
def show(browser, tmp_path):
    def show(*runs):
        (tmp_path / "page.html").write_text(page(runs), encoding="utf-8")
        browser.resize(1000, 800)
        browser.open(f"file://{tmp_path}/page.html")
        return browser

    yield show
    assert browser.errors == []


def text(browser, panel=0):
    script = f"document.querySelectorAll('.text')[{panel}].textContent"
    return browser.run(script)


@needs_chromium
def test_scrubbing_shows_each_step(show):
    browser = show(run_of(4, 4))
    whole = ["░░░░", "░░░w4 ", "░░w3 w4 ", "░w2 w3 w4 ", "w1 w2 w3 w4 "]
    assert text(browser) == whole[4]
    browser.press("Home")
    for expected in whole:
        assert text(browser) == expected
        browser.press("ArrowRight")
    browser.run("viewer.bar.value = 2; viewer.bar.dispatchEvent(new Event('input'))")
    assert text(browser) == whole[2]
    assert "NFE 2 of 4 · 0.20 s of 0.40 s" in browser.run("viewer.panels[0].facts.textContent")
    browser.press(" ")
    assert browser.run("viewer.timer > 0") is True
    browser.press(" ")
    browser.press("End")
    assert text(browser) == whole[4]


@needs_chromium
def test_hovering_a_token_tells_its_history(show):
    browser = show(run_of(4, 4))
    browser.hover(".text span[data-at='2']")
    rows = browser.run("[...viewer.history.querySelectorAll('tr')].map(r => r.textContent)")
    assert rows[1:] == ['2"w2 "proposed0.57', '2"w3 "written by w-rule0.51.25']
    browser.press("]")
    assert "position 3" in browser.run("viewer.history.textContent")


@needs_chromium
def test_two_runs_stand_side_by_side_each_with_its_own_end(show):
    browser = show(run_of(4, 4), run_of(4, 2, word="v"))
    facts = browser.run("[...document.querySelectorAll('.facts')].map(one => one.textContent)")
    assert "NFE 4 of 4 · 0.40 s of 0.40 s" in facts[0] and "NFE 2 of 2" in facts[1]
    left, right = browser.run(
        "[...document.querySelectorAll('section')].map(one => one.getBoundingClientRect().top)"
    )
    assert left == right
    browser.press("Home")
    browser.press("ArrowRight")
    assert (text(browser, 0), text(browser, 1)) == ("░░░w4 ", "░░░v4 ")


@needs_chromium
def test_hostile_text_is_text(show):
    browser = show(run_of(4, 4, prompt=HOSTILE, word=HOSTILE))
    browser.hover(".text span[data-at='2']")
    for _ in range(2):
        browser.press("c")  # by rule: its legend has the text, too
    assert browser.run("document.title") == "dlmdecode trace"
    assert browser.run("document.images.length + document.scripts.length") == 2
    assert browser.run("document.querySelector('.prompt').textContent") == HOSTILE
    assert HOSTILE in text(browser)
    assert HOSTILE in browser.run("document.querySelector('.legend').textContent")


@needs_chromium
def test_colours_and_widths_change_without_errors(show, browser):
    show(run_of(40, 30))
    seen = set()
    for dark in (False, True):
        browser.resize(360, 700, dark)
        for colour in ("confidence", "step", "rule"):
            script = f"viewer.colour.value = '{colour}'; viewer.go(20);"
            script += "getComputedStyle(viewer.panels[0].spans[39]).backgroundColor"
            seen.add(browser.run(script))
        wide = browser.run("document.documentElement.scrollWidth")
        assert wide <= 360
    assert len(seen) == 6


@needs_chromium
def test_a_step_of_a_long_run_touches_few_nodes(show):
    browser = show(run_of(1024, 1000))
    assert browser.run("document.querySelectorAll('*').length") < 1200
    script = """(async () => {
      let count = 0;
      const watch = new MutationObserver(list => count += list.length);
      viewer.go(500);
      watch.observe(viewer.panels[0].text, {subtree: true, childList: true, attributes: true});
      viewer.go(501);
      await new Promise(go => setTimeout(go));
      return count;
    })()"""
    assert 0 < browser.run(script) <= 8
    image = "[viewer.panels[0].image.width, viewer.panels[0].image.height]"
    assert browser.run(image) == [1024, 1000]


@needs_chromium
def test_a_frame_can_be_added_live(show):
    browser = show(run_of(4, 2))
    frame = {"seconds": 1, "nfe": 3, "lo": 0, "hi": 4, "stop": 5, "confidence": "....."}
    frame |= {"writes": [[4, 1, "r", 1, 1, 0]], "drafts": []}
    browser.run(f"viewer.panels[0].add({json.dumps(frame)}); viewer.go(3)")
    assert text(browser) == "░░w3 w4 w1 "


# without a browser


def test_the_page_has_the_data_and_nothing_from_elsewhere(tmp_path, capsys):
    runs, out = tmp_path / "run.jsonl", tmp_path / "run.html"
    dlmdecode.generate(micro("llada"), prompts(5, 7), "wino", max_new_tokens=16, trace=runs)
    assert main(["trace", "view", str(runs), "--html", str(out), "--row", "1"]) == 0
    html = out.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|https?://|@import|url\(", html.replace("src=x", ""))
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html)
    (panel,) = json.loads(data)
    (run,) = read(runs)
    assert panel["prompt"] == run.header["rows"][1]["prompt"]
    assert panel["facts"]["nfe"] == run.end["nfe"][1] == len(panel["frames"])
    code = main(["trace", "view", str(runs), "--html", str(out), "--row", "2"])
    assert code == 2 and "row=2: the run has 2" in capsys.readouterr().err


def test_a_prompt_may_be_called_view(capsys):
    with pytest.raises(SystemExit):
        main(["trace", "--help"])
    assert "--sampler" in capsys.readouterr().out


def test_a_page_of_too_many_texts_asks_for_some():
    with pytest.raises(ValueError, match="17 texts.*a page shows 16"):
        page([run_of(2, 2)] * 17)
