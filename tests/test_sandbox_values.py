"""What a test sees of the program's objects is what it would see in one process."""

import textwrap

import pytest

from dlmdecode.evals import sandbox

CASES = {  # name: (the program after "def f(*xs):", the test's lines)
    "a subclass of a builtin exception": (
        "class Bad(ValueError): pass\n    raise Bad('x', 1)",
        "try: f()\nexcept ValueError as e:\n    error = e\nassert type(error).__name__ == 'Bad'\n"
        "assert error.args == ('x', 1) and repr(error) == \"Bad('x', 1)\"",
    ),
    "a subclass of two exceptions": (
        "class Bad(KeyError, ArithmeticError): pass\n    raise Bad('x')",
        "try: f()\nexcept ArithmeticError as e:\n    assert isinstance(e, LookupError)\n"
        "else: assert 0",
    ),
    "an exception with attributes, a text and a cause": (
        "class Bad(Exception):\n        def __init__(self, code, *, why):\n"
        "            self.code, self.why = code, why\n"
        "        def __str__(self): return f'{self.code}: {self.why}'\n"
        "    try: 1 / 0\n    except ZeroDivisionError as e: raise Bad(3, why='w') from e",
        "try: f()\nexcept Exception as e:\n    error = e\n"
        "assert str(error) == '3: w' and error.code == 3 and error.why == 'w'\n"
        "assert isinstance(error.__cause__, ZeroDivisionError)",
    ),
    "the text of a key error": (
        "return {}['a']",
        "try: f()\nexcept KeyError as e: error = e\n"
        "assert error.args == ('a',) and str(error) == \"'a'\"",
    ),
    "an error of the system": (
        "return open('/tmp/none')",
        "try: f()\nexcept FileNotFoundError as e: error = e\n"
        "assert error.errno == 2 and error.filename == '/tmp/none'",
    ),
    "an error of a codec": (
        "return b'\\xff'.decode()",
        "try: f()\nexcept UnicodeDecodeError as e: error = e\n"
        "assert error.object == b'\\xff' and error.start == 0",
    ),
    "an exception of the library": (
        "import json\n    return json.loads('x')",
        "import json\ntry: f()\nexcept json.JSONDecodeError as e: assert isinstance(e, ValueError)\n"
        "else: assert 0",
    ),
    "an exception of the prompt": (
        "raise NotThere(xs[0])",
        "try: f(4)\nexcept NotThere as e: assert e.args == (4,) and e.number == 4\nelse: assert 0",
    ),
    "an exit is no exception": (
        "raise SystemExit(3)",
        "try: f()\nexcept SystemExit as e: assert e.code == 3\nelse: assert 0",
    ),
    "a returned exception": (
        "return ValueError('x')",
        "assert isinstance(f(), ValueError) and f().args == ('x',)",
    ),
    "an iterator's end": (
        "return next(iter([]))",
        "try: f()\nexcept StopIteration: pass\nelse: assert 0",
    ),
    "keys": (
        "return xs[0].keys()",
        "keys = f({2: 'b', 1: 'a'})\nassert keys == {1, 2} and list(keys) == [2, 1]\n"
        "assert type(keys) is type({}.keys()) and 1 in keys and len(keys) == 2 and keys & {1}\n"
        "assert repr(keys) == 'dict_keys([2, 1])' and keys != [2, 1]",
    ),
    "values": (
        "return xs[0].values()",
        "values = f({2: 'b', 1: 'a'})\nassert list(values) == ['b', 'a'] and values != ['b', 'a']\n"
        "assert repr(values) == \"dict_values(['b', 'a'])\"",
    ),
    "items": (
        "return xs[0].items()",
        "items = f({2: [], 1: 'a'})\nassert list(items) == [(2, []), (1, 'a')]\n"
        "assert items == {2: [], 1: 'a'}.items() and dict(items)[1] == 'a'",
    ),
    "a generator": (
        "return (x * 2 for x in xs)",
        "import types\nmade = f(1, 2)\nassert isinstance(made, types.GeneratorType)\n"
        "assert next(made) == 2 and list(made) == [4] and list(made) == []",
    ),
    "an endless generator": (
        "n = 0\n    while True:\n        n += 1\n        yield n",
        "import itertools\nassert list(itertools.islice(f(), 3)) == [1, 2, 3]",
    ),
    "a generator that raises late, is sent to, and returns": (
        "got = yield 1\n    if got == 'end': return 'result'\n    raise ValueError(got)",
        "made = f()\nassert next(made) == 1\ntry: made.send('x')\n"
        "except ValueError as e: assert e.args == ('x',)\nelse: assert 0\n"
        "made = f(); next(made)\ntry: made.send('end')\nexcept StopIteration as e: "
        "assert e.value == 'result'",
    ),
    "other iterators": (
        "return map(str, xs), zip(xs, xs), enumerate(xs), reversed(xs)",
        "made = f(1, 2)\nassert [list(one) for one in made] == "
        "[['1', '2'], [(1, 1), (2, 2)], [(0, 1), (1, 2)], [2, 1]]",
    ),
    "an iterator as argument": (
        "return [next(xs[0]), next(xs[0])]",
        "import itertools\nn = itertools.count(5)\nassert f(n) == [5, 6] and next(n) == 7",
    ),
    "a list sorted in place": (
        "xs[0].sort()",
        "x = [3, 1, 2]\nassert f(x) is None and x == [1, 2, 3]",
    ),
    "rows of a list changed in place": (
        "for row in xs[0]: row.reverse()\n    xs[0].append(xs[0][0])",
        "one, two = [1, 2], [3, 4]\nx = [one, two]\nf(x)\n"
        "assert one == [2, 1] and x[0] is one and x[2] is one and x[1] is two",
    ),
    "a dict, a set, bytes and a queue changed in place": (
        "d, s, b, q = xs\n    d['k'] = d.pop('a'); s.add(3); b[0] = 9; q.appendleft(0)",
        "from collections import deque\nd, s, b, q = {'a': 1, 'b': 2}, {1}, bytearray(2), deque([1], 2)\n"
        "f(d, s, b, q)\nassert list(d.items()) == [('b', 2), ('k', 1)] and s == {1, 3}\n"
        "assert b == bytearray([9, 0]) and q == deque([0, 1]) and q.maxlen == 2",
    ),
    "an argument is returned": (
        "xs[0].append(1)\n    return xs[0]",
        "x = []\nassert f(x) is x and x == [1]",
    ),
    "one argument twice": (
        "xs[0].append(1)\n    return xs[0] is xs[1]",
        "x = []\nassert f(x, x) is True and x == [1] and f([], []) is False",
    ),
    "changed, then raised": (
        "xs[0].clear()\n    raise ValueError",
        "x = [1]\ntry: f(x)\nexcept ValueError: pass\nassert x == []",
    ),
    "not changed": (
        "return [*xs[0], 1]",
        "x = [object()]\nkept = x[0]\nassert f(x)[0] is kept and x == [kept]",
    ),
    "a list in itself": (
        "x = [1]\n    x.append(x)\n    return x",
        "x = f()\nassert x[1] is x and x[0] == 1",
    ),
    "one object twice": (
        "return [[]] * 2",
        "x = f()\nassert x[0] is x[1]",
    ),
    "a closure": (
        "total = [0]\n    def add(n):\n        total[0] += n\n        return total[0]\n    return add",
        "add = f()\nassert callable(add) and add(2) == 2 and add(n=3) == 5",
    ),
    "a function of the test": (
        "g, *rest = xs\n    return [g(x) for x in rest]",
        "seen = []\nassert f(lambda x: seen.append(x) or x * x, 2, 3) == [4, 9] and seen == [2, 3]\n"
        "assert f(str, 1) == ['1'] and f(max, [1, 2]) == [2]",
    ),
    "a function of the test that raises": (
        "try: xs[0]()\n    except KeyError as e: return e.args",
        "def g(): raise KeyError('k')\nassert f(g) == ('k',)",
    ),
    "types of the library": (
        "from collections import Counter, OrderedDict, defaultdict, deque, namedtuple\n"
        "    from decimal import Decimal\n    from fractions import Fraction\n"
        "    from datetime import date, datetime, timedelta, timezone\n"
        "    d = defaultdict(list)\n    d['a'].append(1)\n"
        "    return (Counter('aab'), OrderedDict(a=1), d, deque([1], maxlen=3), Decimal('1.10'),\n"
        "            Fraction(1, 3), date(2020, 2, 3), datetime(2020, 2, 3, tzinfo=timezone.utc),\n"
        "            timedelta(1), namedtuple('P', 'x y')(1, [2]), slice(1, 2), int)",
        "from decimal import Decimal\nc, o, d, q, *rest, p, s, kind = f()\n"
        "assert c['z'] == 0 and c['a'] == 2 and repr(c) == \"Counter({'a': 2, 'b': 1})\"\n"
        "assert type(o).__name__ == 'OrderedDict' and d['new'] == [] and q.maxlen == 3\n"
        "assert repr(rest[0]) == \"Decimal('1.10')\" and rest[1] * 3 == 1 and rest[2].month == 2\n"
        "assert rest[3].utcoffset().days == 0 and rest[4].days == 1\n"
        "assert p == (1, [2]) and p.y == [2] and repr(p) == 'P(x=1, y=[2])'\n"
        "assert s == slice(1, 2) and kind is int",
    ),
    "numbers and text": (
        "return xs",
        "x = (-0.0, float('inf'), 10**30, True, 1, '\\ud800\\0', b'\\xff', 1 + 2j, range(3, 0, -1))\n"
        "assert repr(f(*x)) == repr(x) and f(float('nan'))[0] != f(float('nan'))[0]",
    ),
    "order and truth": (
        "return sorted(xs)",
        "assert f(2, 1) < [1, 3] and f() == [] and not f() and f('b', 'a') >= ['a']",
    ),
    "annotations of a later time": (
        "return Point(1, 2).x\nfrom __future__ import (\n    annotations,\n)\n"
        "from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int\n    y: None | Later",
        "assert f() == 1",
    ),
}
PROMPT = (
    "class NotThere(LookupError):\n    def __init__(self, number):\n"
    "        super().__init__(number)\n        self.number = number\n\ndef f(*xs):\n    pass\n"
)


def problem(test):
    lines = textwrap.indent(test, "    ")
    return {"prompt": PROMPT, "entry_point": "f", "test": f"def check(f):\n{lines}\n"}


@pytest.fixture(scope="module")
def isolation():
    return next(way for way in sandbox.ISOLATIONS if sandbox.obstacle(way) is None)


@pytest.mark.parametrize("name", CASES)
def test_the_tests_pass_in_the_sandbox_as_they_do_in_one_process(name, isolation):
    body, test = CASES[name]
    case = problem(test)
    if "__future__" not in body:
        exec(PROMPT + f"    {body}\n", space := {})
        exec(case["test"], space)
        space["check"](space["f"])
    result = sandbox.check(case, f"    {body}\n", 60.0, isolation)
    assert result.reason == "passed"


WRONG = {  # nothing of this passes a test that it would not pass in one process
    "the process ends where an exception is expected": (
        "import os\n    os._exit(0)",
        "try: f()\nexcept: pass",
    ),
    "an answer too large where an exception is expected": (
        "return 'x' * 10**7",
        "try: f()\nexcept Exception: pass\nelse: assert 0",
    ),
    "an exception only named like a builtin one": (
        "class ValueError(Exception): pass\n    raise ValueError",
        "try: f()\nexcept ValueError: pass",
    ),
    "an object equal to everything": (
        "class Any:\n        __eq__ = lambda self, other: True\n    return Any()",
        "assert f() == 1",
    ),
    "an argument changed that should not be": (
        "xs[0].sort()\n    return xs[0]",
        "x = [2, 1]\nassert f(x) == [1, 2] and x == [2, 1]",
    ),
    "nonsense on the pipe where an exception is expected": (
        "import os\n    os.write(4, b'[]\\n')",
        "try: f()\nexcept Exception: pass",
    ),
    "a raised number": (
        'import os\n    os.write(4, b\'["raised", ["int", "0x1"], []]\\n\')',
        "try: f()\nexcept Exception: pass",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_programs_fail(name, isolation):
    body, test = WRONG[name]
    assert not sandbox.check(problem(test), f"    {body}\n", 60.0, isolation).passed


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("'\\ud800'", "\\ud800"),
        ("'a\\0b\\nc'", "a\\x00b\\nc"),
        ("'\\x1b[31mred'", "\\x1b[31mred"),
        ("'\\u202eright'", "\\u202eright"),
        ("'\u00e9'", "\u00e9"),
        ("'x' * 10**6", "xxx"),
    ],
)
def test_what_a_program_says_is_one_short_printable_line(text, told, isolation):
    body = f"    raise ValueError({text})\n"
    reason = sandbox.check(problem("f()"), body, 60.0, isolation).reason
    assert reason.startswith(f"ValueError: {told}")
    assert reason.isprintable() and len(reason) <= 300 and reason.encode()
