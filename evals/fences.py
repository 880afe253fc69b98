"""Code blocks in a model's answer: CommonMark's fences, and what models make of them.

A fence is three or more backticks or tildes, in a list or a quotation too, with any info string; it
may follow words on its line, or hold one line of code. It closes at a fence of the same character,
as long or longer and not indented four columns deeper (that one belongs to a docstring), also
behind code on its line, or at the end of the text; one with a language opens the next block, too.
"""

from __future__ import annotations

import re
import textwrap

OPENING = re.compile(r"(?P<lead>[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)*)(?P<fence>```+|~~~+)[^`\n]*\Z")
AFTER_WORDS = re.compile(r"(?P<lead>).*?[^`](?P<fence>```+)[\w+-]*[ \t]*\Z")
REOPENING = re.compile(r"(?P<fence>```+|~~~+)\w")
INDENT = re.compile(r"[ \t>]*")
ONE_LINE = re.compile(
    r"(?P<lead>[ \t>]*)(?P<fence>```+)(?:(?:python|py)\b)?[ \t]*(?P<code>[^`]+)(?P=fence)[ \t]*\Z"
)
STUB = re.compile(  # no body, or one that says that it is to be written
    r"(?:def +\w+\s*\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|class +\w+)[^:\n]*:\s*"
    r'(?:[rRuU]?("""|\'\'\')(?:(?!\1).)*\1\s*)?'
    r"(?:(?:\.\.\.|pass\b|raise NotImplementedError\b[^\n]*|#[^\n]*)\s*)*\Z",
    re.DOTALL,
)
BODY = re.compile(r"\s*^(?: {2,}|\t)\S", re.MULTILINE)


def code_of(text: str, defines: re.Pattern[str]) -> str:
    """The code of an answer: the first block that `defines`, one with a body before others.

    Blocks inside a longer fence count too. Where none defines it is the first block; text before
    the first fence counts as one if it defines too or is an indented body: the answer went on from
    an opening fence that was in the prompt. Without a fence the whole text is code.
    """
    before, found = blocks(unmarked(text))
    inside = [one for code in found for one in nested(code, defines)]
    versions = [one for code in [*inside, before] for one in (code, textwrap.dedent(code))]
    defining = [code for code in versions if defines.search(code)]
    if defining:
        return next((code for code in defining if not STUB.search(code)), defining[0])
    if BODY.match(before) or not found:
        return before
    return found[0]


def unmarked(text: str) -> str:
    """`text` without a byte order mark, its lines ended by line feeds."""
    return text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def nested(code: str, defines: re.Pattern[str]) -> list[str]:
    """A block, after those in it where it is prose around them and not code that quotes fences."""
    before, found = blocks(code)
    return [code] if defines.search(before) else [*found, code]


def blocks(text: str) -> tuple[str, list[str]]:
    """What stands before the first fence, and the content of every block."""
    before: list[str] = []
    found: list[list[str]] = []
    fence, depth = "", 0  # of the block that is open
    for line in text.split("\n"):
        if fence:
            indent = INDENT.match(line).group()  # type: ignore[union-attr]
            rest = line[len(indent) :]
            if rest.startswith(fence) and len(indent) < depth + 4:
                fence = ""
                if again := REOPENING.match(rest):
                    fence, depth = again["fence"], len(indent)
                    found.append([])
            elif line.count(fence) == 1 and rest.rstrip().endswith(fence) and rest[:1] != fence[0]:
                found[-1].append(without(line, depth).rstrip().removesuffix(fence))
                fence = ""
            else:
                found[-1].append(without(line, depth))
        elif line_of_code := ONE_LINE.match(line):
            found.append([line_of_code["code"]])
        elif opening := OPENING.match(line) or AFTER_WORDS.match(line):
            fence, depth = opening["fence"], len(opening["lead"])
            found.append([])
        elif not found:
            before.append(line)
    return "\n".join(before), ["\n".join(lines).lstrip("\ufeff") for lines in found]


def without(line: str, depth: int) -> str:
    """`line` less the indentation, or quotation marks, of its fence."""
    lead = INDENT.match(line[:depth]).group()  # type: ignore[union-attr]
    return line[len(lead) :]
