"""`dlmdecode generate --input FILE --output FILE`: a line of JSON for each prompt of a file.

The output says which lines of the input it has, so that the same command goes on where it ended.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlmdecode.checks import require, shown
from dlmdecode.console import given_settings, load_model

BEGIN = b'{"index": '


def add_arguments(parser: argparse.ArgumentParser) -> None:
    help = "prompts, a line of JSON each: a text, or an object with prompt (text or messages)"
    parser.add_argument("--input", type=Path, metavar="FILE.jsonl", help=help)
    help = "where texts go: of --input a line of JSON each, what it has already is kept"
    parser.add_argument("--output", type=Path, metavar="FILE", help=help)
    parser.add_argument("--batch-size", type=int, metavar="N", help="prompts in flight (8)")


def run(arguments: argparse.Namespace) -> None:
    """Decode what the output does not have yet."""
    from tqdm import tqdm

    from dlmdecode import Engine

    require(arguments.prompt is None, "prompt", arguments.prompt, "leave it out beside --input")
    require(arguments.output is not None, "--output", None, "say where the texts of --input go")
    require(arguments.trace is None, "--trace", arguments.trace, "it is of a single prompt")
    prompts = list(read_prompts(arguments.input))
    require(not arguments.json, "--json", True, "what --input gives is JSON: leave it out")
    options = given_settings(arguments)
    done = finished(arguments.output, len(prompts))
    check_same(arguments, prompts, options, bool(done))
    left = [index for index in range(len(prompts)) if index not in done]
    model = load_model(arguments)
    places = {} if arguments.batch_size is None else {"batch_size": arguments.batch_size}
    engine = Engine(model, arguments.sampler, **places, **options)
    bar = tqdm(total=len(prompts), initial=len(done), unit="prompt", disable=not shows())
    with engine, bar, open(arguments.output, "a", encoding="utf-8") as file:
        for index, record in decoded(engine, prompts, left, templated(model, arguments.raw)):
            file.write(json.dumps({"index": index} | record, ensure_ascii=False) + "\n")
            file.flush()
            bar.update()


def check_same(
    arguments: argparse.Namespace, prompts: list[Any], options: dict[str, Any], begun: bool
) -> None:
    """Keep beside the output what its texts depend on; `ValueError` where a run had another."""
    path = arguments.output.with_name(f"{arguments.output.name}.run.json")
    text = json.dumps(prompts, ensure_ascii=False).encode(errors="surrogatepass")
    now = {"input_sha256": hashlib.sha256(text).hexdigest()}
    names = ("model", "revision", "dtype", "quantize", "sampler", "raw")
    now |= {name: vars(arguments)[name] for name in names} | options
    now = json.loads(json.dumps(now))  # as they are read
    if begun and path.is_file():
        before = json.loads(path.read_bytes())
        for name in sorted(before.keys() | now.keys()):
            one, other = before.get(name), now.get(name)
            fix = f"its texts were written with {name}={shown(one)}: give another --output"
            require(one == other, name, other, fix)
    elif not begun:
        path.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


def shows() -> bool:
    return sys.stderr.isatty()


def decoded(
    engine: Any, prompts: list[Any], left: list[int], template: bool
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The record of each prompt that is `left`, as it is finished, those that cannot be first.

    The others count among equal prompts, which get noise of their own.
    """
    indices, ready, lacking = [], [], set(left)
    for index, prompt in enumerate(prompts):
        if template and isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        try:
            engine.call.requests([prompt])
        except (ValueError, TypeError) as error:
            if index in lacking:
                yield index, {"error": str(error)}
            continue
        indices.append(index)
        ready.append(prompt)
    several = engine.call.settings.num_return_sequences
    kept: dict[int, dict[int, Any]] = {}
    requests = engine.prepare(ready) if ready else []
    requests = [one for one in requests if indices[one.index // several] in lacking]
    for request in engine.decode(requests):
        place, copy = divmod(request.index, several)
        kept.setdefault(place, {})[copy] = outcome(request)
        if len(kept[place]) == several:
            yield indices[place], joined([kept[place][i] for i in range(several)])
            del kept[place]


def outcome(request: Any) -> dict[str, Any]:
    """What one text gave."""
    error = request.exception()
    if error is not None:
        return {"error": str(error)}
    out = request.result()
    text = out.texts[0] if out.texts is not None else ""
    return {"text": text, "nfe": out.nfe[0], "new_tokens": out.new_tokens[0]}


def joined(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The texts of one prompt as one record: lists where there are several."""
    failed = [record for record in records if "error" in record]
    if len(records) == 1 or failed:
        return failed[0] if failed else records[0]
    return {name: [record[name] for record in records] for name in records[0]}


def templated(model: Any, raw: bool) -> bool:
    return not raw and getattr(model.tokenizer, "chat_template", None) is not None


def read_prompts(path: Path) -> Iterator[Any]:
    """The prompts of a file.

    Raises:
        ValueError: a line is none, named by its number.
        OSError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"--input {path}: it is not UTF-8: {error}") from error
    for number, line in enumerate(lines.split("\n") if lines else (), 1):  # not at U+2028
        value = None
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(line)
        found = value.get("prompt") if isinstance(value, dict) else value
        usable = isinstance(found, (str, list)) and found != []
        fix = 'give a JSON string, or {"prompt": a text or messages}'
        require(usable, "--input", f"{path} line {number}", fix)
        yield found


def finished(path: Path, count: int) -> set[int]:
    """Which prompts the output has; a line that was torn is taken off.

    Raises `ValueError` for a file that is no output of such a command, or has more lines.
    """
    if not path.exists():
        return set()
    fix = "give a regular file: what it has is read, to go on where it ended"
    require(path.is_file(), "--output", str(path), fix)
    whole = path.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1]
    done = set()
    for number, line in enumerate(kept.splitlines(), 1):
        try:
            index = json.loads(line)["index"]
        except (ValueError, KeyError, TypeError):
            index = -1
        known = isinstance(index, int) and 0 <= index < count
        fix = "it is no output of this input: give another file"
        require(known, "--output", f"{path} line {number}", fix)
        done.add(index)
    torn = whole[len(kept) :]
    begins = BEGIN.startswith(torn[: len(BEGIN)])
    require(begins, "--output", str(path), "it is no output of this command: give another file")
    if torn:
        path.write_bytes(kept)
    return done
