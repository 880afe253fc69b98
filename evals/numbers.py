r"""Numbers as models write them, read exactly.

Read: signs (any dash but the long one), currencies ($5, US$5, USD 5, Rs. 5), digits of every
script, groups of three (comma, apostrophe, underscore, `{,}`, no-break and thin spaces) and of two
and three (1,00,000), 1.234,5 and 1.234.567, fractions and mixed numbers (4 1/2, 4½, 4\frac{1}{2}),
1e3, 1.5 × 10^3.

Not guessed: `3,5` is two numbers, `1.234` a decimal one; a plain space groups digits only where
nothing more follows on the line (1 234) or a group begins with 0 (12 000 cups); `5–10` is a range,
so its numbers are positive; what stands behind a ^ is an exponent.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

WHOLE = (  # repeats have bounds: a text of numbers takes linear time
    r"[0-9]{1,3}(?:\.[0-9]{3}){1,9},[0-9]+(?![.,]?[0-9])"  # 1.234,5
    r"|[0-9]{1,3}(?:\.[0-9]{3}){2,9}(?![.,]?[0-9])"  # 1.234.567
    r"|[0-9]{1,3}(?:,[0-9]{3}){1,9}(?![0-9])(?:\.[0-9]+)?"
    r"|[0-9]{1,2}(?:,[0-9]{2}){1,9},[0-9]{3}(?![0-9])(?:\.[0-9]+)?"  # 1,00,000
    r"|[0-9]{1,3}(?:(?P<mark>['_\u00a0])[0-9]{3})(?:(?P=mark)[0-9]{3}){0,9}(?![0-9])(?:[.,][0-9]+)?"
    r"|[1-9][0-9]{0,2}(?: [0-9]{3}){1,9}(?:\.[0-9]+)?(?=[\W_]*$)"  # 1 234, at the end
    # 12 000 cups
    r"|[1-9][0-9]{0,2}(?: [0-9]{3}){0,9} 0[0-9]{2}(?: [0-9]{3}){0,9}(?![0-9])(?:\.[0-9]+)?"
    r"|[0-9]+(?:\.[0-9]+)?"
    r"|(?<![\w.])\.[0-9]+"
)
POWER_OF = r"(?:\^|\*\*)(?P<{0}_brace>\{{)?(?P<{0}>[+-]?[0-9]{{1,2}})(?({0}_brace)\}}|(?![0-9]))"
NUMBER = re.compile(
    r"(?P<sign>(?<![\w)}])-)?(?:[$] ?(?P<inner>-)?)?"  # a currency before or behind the sign
    rf"(?<![\^0-9])(?<!\^\{{)(?<!\^\{{-)(?P<whole>{WHOLE})"  # no exponent
    r"(?P<power>[eE][+-]?[0-9]{1,2}(?![0-9]))?"
    rf"(?: ?(?:\u00d7|\\times|\\cdot|\u00b7|\*|x) ?10{POWER_OF.format('ten')})?"
    rf"(?:{POWER_OF.format('exponent')})?"
    r"(?:/(?P<under>[0-9]+)(?![0-9/]|\.[0-9])| {1,2}(?P<part>[0-9]+/[0-9]+)(?![0-9/]|\.[0-9]))?",
    re.MULTILINE,
)
CONTINUED = re.compile(
    r"[-.,':/]?[0-9]| [0-9]{3}(?![0-9])"
)  # behind a match: it was not all of the number
LATEX = [  # (pattern, plain form)
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\([$%&#_])"), r"\1"),
    (re.compile(r"\\(?:pounds|textdollar|euro)\b *"), "$"),
    (re.compile(r"(?<!\w)[A-Z]{1,3}(?=\$ ?-?[0-9])"), ""),  # US$18
    (re.compile(r"(?<!\w)(?:[A-Z]{3}|Rs\.?)(?: ?(?=[0-9])| (?=-[0-9]))"), "$"),  # USD 18
    (re.compile(r"(?<=[0-9])(?:~|\\thinspace *)(?=[0-9]{3})"), "\u00a0"),
    (re.compile(r"~"), " "),
    (re.compile(r"(?<=[0-9])(?:\\[,;: !]|\{\\,\})(?=[0-9]{3})"), "\u00a0"),
    (re.compile(r"\\[,;:!]"), ""),
    (re.compile(r"(?<=[0-9])[ \\]*\\[cdst]?frac *(?=[{0-9])"), r" \\frac"),
    (re.compile(r"\\[cdst]?frac *\{ *(-?[0-9]+) *\} *\{ *([0-9]+) *\}"), r"\1/\2"),
    (re.compile(r"\\[cdst]?frac *\{ *([0-9]+) *\} *\{ *-([0-9]+) *\}"), r"-\1/\2"),
    (re.compile(r"\\[cdst]?frac *\{ *(-?[0-9]+) *\} *([0-9])"), r"\1/\2"),
    (re.compile(r"\\[cdst]?frac *([0-9]) *\{ *([0-9]+) *\}"), r"\1/\2"),
    (re.compile(r"\\[cdst]?frac *([0-9]) *([0-9])"), r"\1/\2"),
    (re.compile(r"\{ *(-?[0-9]+) *\\over *([0-9]+) *\}"), r"\1/\2"),
]
SAME = str.maketrans({
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\uff0d\ufe63", "-"),
    **dict.fromkeys("\u2019\u02bc\uff07", "'"),
    **dict.fromkeys("\u202f\u2009\u2007\u2008", "\u00a0"),
    "\u2044": "/", "\uff0f": "/", "\u066b": ".", "\uff0e": ".", "\u066c": ",", "\uff0c": ",",
    "\uff0b": "+", "\uff05": "%", "\u066a": "%",
})  # fmt: skip
SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207b"
RAISED = str.maketrans(SUPERSCRIPTS, "0123456789-")
BARE = "\0"  # stands before a fraction that was one character
HALF = re.compile(rf"(?<=[0-9]){BARE}")  # of a mixed number
JOINERS = dict.fromkeys(map(ord, "\u200b\u200e\u200f\u2060\ufeff"))  # which nobody sees
POWER = re.compile(rf"(?<=10)([{SUPERSCRIPTS}]+)")


def plain(text: str) -> str:
    """Signs, digits, currencies and LaTeX of `text` in the one form that `NUMBER` knows."""
    text = text.translate(SAME).translate(JOINERS)
    text = POWER.sub(lambda found: "^" + found[1].translate(RAISED), text)
    text = HALF.sub(" ", "".join(map(plain_character, text))).replace(BARE, "")
    for pattern, form in LATEX:
        text = pattern.sub(form, text)
    return text


def plain_character(character: str) -> str:
    if character.isascii():
        return character
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if unicodedata.category(character) == "Sc":
        return "$"
    fraction = unicodedata.decomposition(character)  # of ½: "<fraction> 0031 2044 0032"
    if fraction.startswith("<fraction>"):
        top, bottom = "".join(chr(int(code, 16)) for code in fraction.split()[1:]).split("\u2044")
        return f"{BARE}{top}/{bottom or 1}"
    return character


def values(match: re.Match[str]) -> list[Fraction | None]:
    """The number matched by `NUMBER`, or both of "4 7/5"; None: too long, or divided by zero."""
    whole, part = match["whole"], match["part"]
    if re.fullmatch(r"[0-9.]+,[0-9]+|[0-9]+(?:\.[0-9]+){2,}", whole) and "." in whole:
        whole = whole.replace(".", "").replace(",", ".")
    if match["mark"]:
        whole = whole.replace(",", ".")
    try:
        found = Fraction(re.sub(r"[,'_\u00a0 ]", "", whole) + (match["power"] or ""))
        found *= Fraction(10) ** int(match["ten"] or 0)
        found **= int(match["exponent"] or 1)
        found /= Fraction(match["under"] or 1)
        rest = Fraction(part or 0)
    except (ValueError, ZeroDivisionError):
        return [None]
    sign = -1 if match["sign"] or match["inner"] else 1
    if part and not (rest < 1 and found.denominator == 1):
        return [sign * found, rest]
    return [sign * (found + rest)]


def first_value(text: str, begin: int) -> Fraction | None:
    """Of plain `text`: the number that stands at `begin`, whole."""
    match = NUMBER.match(text, begin)
    return None if match is None or CONTINUED.match(text, match.end()) else values(match)[0]


def last_value(text: str) -> Fraction | None:
    """Of plain `text`: the last number."""
    found = [match for match in NUMBER.finditer(text)]
    return values(found[-1])[-1] if found else None
