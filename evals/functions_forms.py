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
WIDER: Operations = {  # wordings of training alone
    "sorted({x})": (
        "bring the items into order", "move the smallest items to the front",
        "order {x} so that the smallest come first", "order {x} from the smallest to the largest",
    ),
    "sorted({x}, reverse=True)": (
        "bring the largest items to the front", "order the items from the largest to the smallest",
        "order {x} from large to small", "arrange {x} so that the largest come first",
    ),
    "{x}[::-1]": (
        "flip {x}", "flip it around", "go from end to start", "turn it from end to start",
    ),
    "{x}[:{k}]": (
        "retain only the first {k}", "retain the first {k} of {x}", "take {k} from the start",
        "keep {k} from the start", "retain what is in the first {k} places",
    ),
    "{x}[{k}:]": (
        "discard the first {k}", "discard the first {k} of {x}", "drop {k} from the start",
        "remove {k} from the start", "discard what is in the first {k} places",
    ),
    "{x}[-{k}:]": (
        "retain only the last {k}", "retain the last {k} of {x}", "take {k} items from the end",
        "keep {k} items from the end",
    ),
    "[item + {k} for item in {x}]": (
        "make every item {k} larger", "make all items larger by {k}", "let each item grow by {k}",
    ),
    "[item - {k} for item in {x}]": (
        "make every item {k} smaller", "make all items smaller by {k}",
        "let each item shrink by {k}", "take {k} off each item",
    ),
    "[item * {k} for item in {x}]": (
        "turn every item into {k} times its size", "replace each item by {k} times itself",
        "take each item {k} times",
    ),
    "[item for item in {x} if item > {k}]": (
        "pick the items above {k}", "pick what is over {k}", "keep what is more than {k}",
        "retain all items above {k}",
    ),
    "[item for item in {x} if item < {k}]": (
        "pick the items below {k}", "pick what is less than {k}", "keep what is under {k}",
        "retain all items below {k}",
    ),
    "[item for item in {x} if item % 2 == 0]": (
        "filter out the odd items", "pick everything even", "discard what is odd",
        "retain only what is even",
    ),
    "[item for item in {x} if item % 2 == 1]": (
        "filter out the even items", "pick everything odd", "discard what is even",
        "retain only what is odd",
    ),
    "{x}": ("give back the result", "give {x} back", "hand the result back"),
    "sum({x})": ("give back the sum", "give the sum of all items back", "say what they add up to"),
    "len({x})": (
        "give back how many there are", "say how many there are", "say how many remain",
        "give the length back", "say how long {x} is",
    ),
    "max({x}, default=0)": (
        "give back the maximum", "give the biggest item back", "say which is the largest",
    ),
    "min({x}, default=0)": (
        "give back the minimum", "give the least item back", "say which is the smallest",
    ),
    "{x}.upper()": (
        "write it in capitals", "write {x} in upper case", "put everything in capital letters",
    ),
    "{x}.lower()": (
        "write it in small letters", "write {x} in lower case", "put everything in small letters",
    ),
    "{x} * {k}": ("say it {k} times", "write {x} {k} times over", "repeat it {k} times over"),
    '{x}.replace("{a}", "{b}")': (
        'write "{b}" instead of "{a}"', 'put "{b}" where "{a}" was',
        'let "{b}" take the place of "{a}"',
    ),
    '{x} + "{b}"': ('put "{b}" at the end', 'write "{b}" behind {x}', 'put "{b}" after it'),
    '"{b}" + {x}': ('put "{b}" at the start', 'write "{b}" before {x}', 'put "{b}" ahead of it'),
    '{x}.count("{a}")': (
        'say how often "{a}" is in it', 'give back how many "{a}" there are',
        'say how often "{a}" occurs',
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
