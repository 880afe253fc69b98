"""What the functions do, and the ways to ask for it: expression -> wordings.

A wording that begins with `~` occurs in the split "phrasing" and nowhere else.
"""

from __future__ import annotations

Operations = dict[str, tuple[str, ...]]
LISTS: Operations = {
    "sorted({x})": (
        "sort the items", "put the items in order", "order the items by size",
        "sort {x} in ascending order", "arrange {x} from small to large", "sort {x}",
        "~bring the smallest items to the front",
    ),
    "sorted({x}, reverse=True)": (
        "sort from large to small", "put the largest items first",
        "sort {x} in descending order", "arrange the items from large to small",
        "~order {x} so that the largest come first",
    ),
    "{x}[::-1]": (
        "reverse the items", "turn the order around", "reverse {x}", "put {x} in reverse order",
        "~flip the order of {x}",
    ),
    "{x}[:{k}]": (
        "keep the first {k} items", "take the first {k} items", "keep only the first {k} of {x}",
        "cut {x} after {k} items", "~retain {k} items from the start",
    ),
    "{x}[{k}:]": (
        "drop the first {k} items", "skip the first {k} items", "remove the first {k} items",
        "leave out the first {k} of {x}", "~discard {k} items from the start",
    ),
    "{x}[-{k}:]": (
        "keep the last {k} items", "take the last {k} items", "keep only the last {k} of {x}",
        "~retain {k} items from the end",
    ),
    "[item + {k} for item in {x}]": (
        "add {k} to each item", "raise each item by {k}", "add {k} to every item of {x}",
        "increase all items by {k}", "~make each item larger by {k}",
    ),
    "[item - {k} for item in {x}]": (
        "subtract {k} from each item", "lower each item by {k}",
        "subtract {k} from every item of {x}", "decrease all items by {k}",
        "~make each item smaller by {k}",
    ),
    "[item * {k} for item in {x}]": (
        "multiply each item by {k}", "make each item {k} times as big",
        "multiply every item of {x} by {k}", "scale all items by {k}",
        "~turn each item into {k} times itself",
    ),
    "[item for item in {x} if item > {k}]": (
        "keep the items above {k}", "keep what exceeds {k}", "keep the items greater than {k}",
        "select the items larger than {k}", "~pick what is more than {k}",
    ),
    "[item for item in {x} if item < {k}]": (
        "keep the items below {k}", "drop {k} and above", "keep the items less than {k}",
        "select the items smaller than {k}", "~pick what is under {k}",
    ),
    "[item for item in {x} if item % 2 == 0]": (
        "keep the even items", "drop the odd items", "select the even items of {x}",
        "remove all odd items", "~filter out everything odd",
    ),
    "[item for item in {x} if item % 2 == 1]": (
        "keep the odd items", "drop the even items", "select the odd items of {x}",
        "remove all even items", "~filter out everything even",
    ),
}  # fmt: skip
LIST_ENDS: Operations = {
    "{x}": ("return the items", "return the list", "return {x}", "~give the list back"),
    "sum({x})": (
        "return the sum", "add all up", "return the sum of {x}", "return the total",
        "compute the sum of all items", "~give the total back",
    ),
    "len({x})": (
        "return how many there are", "count the items", "return the number of items",
        "return the length of the list", "~say how many are left",
    ),
    "max({x}, default=0)": (
        "return the largest item", "return the maximum", "return the biggest of {x}",
        "find the maximum", "~give the largest back",
    ),
    "min({x}, default=0)": (
        "return the smallest item", "return the minimum", "return the least of {x}",
        "find the minimum", "~give the smallest back",
    ),
}  # fmt: skip
STRINGS: Operations = {
    "{x}.upper()": (
        "make the text upper case", "use capital letters", "convert {x} to upper case",
        "turn all letters into capitals", "~write everything in capitals",
    ),
    "{x}.lower()": (
        "make the text lower case", "use small letters", "convert {x} to lower case",
        "turn all letters into small ones", "~write everything in small letters",
    ),
    "{x}[::-1]": (
        "reverse the text", "turn the text around", "reverse {x}", "write {x} backwards",
        "~flip the letters from end to start",
    ),
    "{x}[:{k}]": (
        "keep the first {k} letters", "cut after {k} letters", "take the first {k} characters",
        "keep only the first {k} letters of {x}", "~retain {k} letters from the start",
    ),
    "{x}[{k}:]": (
        "drop the first {k} letters", "skip the first {k} letters",
        "remove the first {k} characters", "leave out the first {k} letters of {x}",
        "~discard {k} letters from the start",
    ),
    "{x} * {k}": (
        "repeat the text {k} times", "write the text {k} times", "repeat {x} {k} times",
        "~say the text {k} times over",
    ),
    '{x}.replace("{a}", "{b}")': (
        'replace "{a}" by "{b}"', 'turn each "{a}" into "{b}"', 'replace every "{a}" with "{b}"',
        'change "{a}" to "{b}"', '~write "{b}" where "{a}" is',
    ),
    '{x} + "{b}"': (
        'add "{b}" at the end', 'append "{b}"', 'end with "{b}"', 'append "{b}" to {x}',
        '~put "{b}" behind it',
    ),
    '"{b}" + {x}': (
        'put "{b}" in front', 'begin with "{b}"', 'prepend "{b}"', 'add "{b}" at the start',
        '~put "{b}" before it',
    ),
}  # fmt: skip
STRING_ENDS: Operations = {
    "{x}": ("return the text", "return the result", "return {x}", "~give the text back"),
    "len({x})": (
        "return the length", "count the letters", "return the number of letters",
        "return how long {x} is", "~say how long it is",
    ),
    '{x}.count("{a}")': (
        'count each "{a}"', 'return how often "{a}" occurs', 'return the number of "{a}"',
        'count how many times "{a}" occurs', '~say how many "{a}" there are',
    ),
}  # fmt: skip
JOINS = (", then ", ", then ", " and ", ", and then ", "; ")
NAMES = {
    "train": (
        "change solve process transform convert work f compute get_result apply update handle "
        "make run_all edit build filter_items modify task function"
    ).split(),
    "calibration": "adapt prepare".split(),
    "heldout": "refine operate produce".split(),
}
ARGUMENTS = {
    "lists": ("items", "items", "numbers", "values", "data"),
    "strings": ("text", "text", "word", "string", "s"),
}
LETTERS = "abcdeiorst"
