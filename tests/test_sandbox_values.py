"""What a test sees of the program's objects is what it would see in one process."""

import textwrap

import pytest
from confined import strongest

from dlmdecode.evals import sandbox

CASES = {  # name: (the body of f(*xs), the test's lines, what follows f)
    "a subclass of a builtin exception": (
        """
        class Bad(ValueError): pass
        raise Bad('x', 1)
        """,
        """
        try: f()
        except ValueError as e:
            error = e
        assert type(error).__name__ == 'Bad'
        assert error.args == ('x', 1) and repr(error) == "Bad('x', 1)"
        """,
    ),
    "a subclass of two exceptions": (
        """
        class Bad(KeyError, ArithmeticError): pass
        raise Bad('x')
        """,
        """
        try: f()
        except ArithmeticError as e:
            assert isinstance(e, LookupError)
        else: assert 0
        """,
    ),
    "an exception with attributes, a text and a cause": (
        """
        class Bad(Exception):
            def __init__(self, code, *, why):
                self.code, self.why = code, why
            def __str__(self): return f'{self.code}: {self.why}'
        try: 1 / 0
        except ZeroDivisionError as e: raise Bad(3, why='w') from e
        """,
        """
        try: f()
        except Exception as e:
            error = e
        assert str(error) == '3: w' and error.code == 3 and error.why == 'w'
        assert isinstance(error.__cause__, ZeroDivisionError)
        """,
    ),
    "the text of a key error": (
        "return {}['a']",
        """
        try: f()
        except KeyError as e: error = e
        assert error.args == ('a',) and str(error) == "'a'"
        """,
    ),
    "an error of the system": (
        "return open('/tmp/none')",
        """
        try: f()
        except FileNotFoundError as e: error = e
        assert error.errno == 2 and error.filename == '/tmp/none'
        """,
    ),
    "an error of a codec": (
        r"return b'\xff'.decode()",
        r"""
        try: f()
        except UnicodeDecodeError as e: error = e
        assert error.object == b'\xff' and error.start == 0
        """,
    ),
    "an exception of the library": (
        """
        import json
        return json.loads('x')
        """,
        """
        import json
        try: f()
        except json.JSONDecodeError as e: assert isinstance(e, ValueError)
        else: assert 0
        """,
    ),
    "an exception of the prompt": (
        "raise NotThere(xs[0])",
        """
        try: f(4)
        except NotThere as e: assert e.args == (4,) and e.number == 4
        else: assert 0
        """,
    ),
    "an exit is no exception": (
        "raise SystemExit(3)",
        """
        try: f()
        except SystemExit as e: assert e.code == 3
        else: assert 0
        """,
    ),
    "a returned exception": (
        "return ValueError('x')",
        "assert isinstance(f(), ValueError) and f().args == ('x',)",
    ),
    "an iterator's end": (
        "return next(iter([]))",
        """
        try: f()
        except StopIteration: pass
        else: assert 0
        """,
    ),
    "keys": (
        "return xs[0].keys()",
        """
        keys = f({2: 'b', 1: 'a'})
        assert keys == {1, 2} and list(keys) == [2, 1]
        assert type(keys) is type({}.keys()) and 1 in keys and len(keys) == 2 and keys & {1}
        assert repr(keys) == 'dict_keys([2, 1])' and keys != [2, 1]
        """,
    ),
    "values": (
        "return xs[0].values()",
        """
        values = f({2: 'b', 1: 'a'})
        assert list(values) == ['b', 'a'] and values != ['b', 'a']
        assert repr(values) == "dict_values(['b', 'a'])"
        """,
    ),
    "items": (
        "return xs[0].items()",
        """
        items = f({2: [], 1: 'a'})
        assert list(items) == [(2, []), (1, 'a')]
        assert items == {2: [], 1: 'a'}.items() and dict(items)[1] == 'a'
        """,
    ),
    "a generator": (
        "return (x * 2 for x in xs)",
        """
        import types
        made = f(1, 2)
        assert isinstance(made, types.GeneratorType)
        assert next(made) == 2 and list(made) == [4] and list(made) == []
        """,
    ),
    "an endless generator": (
        """
        n = 0
        while True:
            n += 1
            yield n
        """,
        """
        import itertools
        assert list(itertools.islice(f(), 3)) == [1, 2, 3]
        """,
    ),
    "a generator that raises late, is sent to, and returns": (
        """
        got = yield 1
        if got == 'end': return 'result'
        raise ValueError(got)
        """,
        """
        made = f()
        assert next(made) == 1
        try: made.send('x')
        except ValueError as e: assert e.args == ('x',)
        else: assert 0
        made = f(); next(made)
        try: made.send('end')
        except StopIteration as e: assert e.value == 'result'
        """,
    ),
    "other iterators": (
        "return map(str, xs), zip(xs, xs), enumerate(xs), reversed(xs)",
        """
        made = f(1, 2)
        assert [*map(list, made[:2])] == [['1', '2'], [(1, 1), (2, 2)]]
        assert [*map(list, made[2:])] == [[(0, 1), (1, 2)], [2, 1]]
        """,
    ),
    "an iterator as argument": (
        "return [next(xs[0]), next(xs[0])]",
        """
        import itertools
        n = itertools.count(5)
        assert f(n) == [5, 6] and next(n) == 7
        """,
    ),
    "a list sorted in place": (
        "xs[0].sort()",
        """
        x = [3, 1, 2]
        assert f(x) is None and x == [1, 2, 3]
        """,
    ),
    "rows of a list changed in place": (
        """
        for row in xs[0]: row.reverse()
        xs[0].append(xs[0][0])
        """,
        """
        one, two = [1, 2], [3, 4]
        x = [one, two]
        f(x)
        assert one == [2, 1] and x[0] is one and x[2] is one and x[1] is two
        """,
    ),
    "a dict, a set, bytes and a queue changed in place": (
        """
        d, s, b, q = xs
        d['k'] = d.pop('a'); s.add(3); b[0] = 9; q.appendleft(0)
        """,
        """
        from collections import deque
        d, s, b, q = {'a': 1, 'b': 2}, {1}, bytearray(2), deque([1], 2)
        f(d, s, b, q)
        assert list(d.items()) == [('b', 2), ('k', 1)] and s == {1, 3}
        assert b == bytearray([9, 0]) and q == deque([0, 1]) and q.maxlen == 2
        """,
    ),
    "an argument is returned": (
        """
        xs[0].append(1)
        return xs[0]
        """,
        """
        x = []
        assert f(x) is x and x == [1]
        """,
    ),
    "one argument twice": (
        """
        xs[0].append(1)
        return xs[0] is xs[1]
        """,
        """
        x = []
        assert f(x, x) is True and x == [1] and f([], []) is False
        """,
    ),
    "changed, then raised": (
        """
        xs[0].clear()
        raise ValueError
        """,
        """
        x = [1]
        try: f(x)
        except ValueError: pass
        assert x == []
        """,
    ),
    "not changed": (
        "return [*xs[0], 1]",
        """
        x = [object()]
        kept = x[0]
        assert f(x)[0] is kept and x == [kept]
        """,
    ),
    "a list in itself": (
        """
        x = [1]
        x.append(x)
        return x
        """,
        """
        x = f()
        assert x[1] is x and x[0] == 1
        """,
    ),
    "one object twice": (
        "return [[]] * 2",
        """
        x = f()
        assert x[0] is x[1]
        """,
    ),
    "a closure": (
        """
        total = [0]
        def add(n):
            total[0] += n
            return total[0]
        return add
        """,
        """
        add = f()
        assert callable(add) and add(2) == 2 and add(n=3) == 5
        """,
    ),
    "a function of the test": (
        """
        g, *rest = xs
        return [g(x) for x in rest]
        """,
        """
        seen = []
        assert f(lambda x: seen.append(x) or x * x, 2, 3) == [4, 9] and seen == [2, 3]
        assert f(str, 1) == ['1'] and f(max, [1, 2]) == [2]
        """,
    ),
    "a function of the test that raises": (
        """
        try: xs[0]()
        except KeyError as e: return e.args
        """,
        """
        def g(): raise KeyError('k')
        assert f(g) == ('k',)
        """,
    ),
    "types of the library": (
        """
        from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
        from decimal import Decimal
        from fractions import Fraction
        from datetime import date, datetime, timedelta, timezone
        d = defaultdict(list)
        d['a'].append(1)
        return (Counter('aab'), OrderedDict(a=1), d, deque([1], maxlen=3), Decimal('1.10'),
                Fraction(1, 3), date(2020, 2, 3), datetime(2020, 2, 3, tzinfo=timezone.utc),
                timedelta(1), namedtuple('P', 'x y')(1, [2]), slice(1, 2), int)
        """,
        """
        from decimal import Decimal
        c, o, d, q, *rest, p, s, kind = f()
        assert c['z'] == 0 and c['a'] == 2 and repr(c) == "Counter({'a': 2, 'b': 1})"
        assert repr(o) == repr(type(o)(a=1)) and list(o.keys()) == ['a']
        assert d['new'] == [] and q.maxlen == 3
        assert repr(rest[0]) == "Decimal('1.10')" and rest[1] * 3 == 1 and rest[2].month == 2
        assert rest[3].utcoffset().days == 0 and rest[4].days == 1
        assert p == (1, [2]) and p.y == [2] and repr(p) == 'P(x=1, y=[2])'
        assert s == slice(1, 2) and kind is int
        """,
    ),
    "numbers and text": (
        "return xs",
        r"""
        x = (-0.0, float('inf'), 10**30, True, 1, '\ud800\0', b'\xff', 1 + 2j, range(3, 0, -1))
        assert repr(f(*x)) == repr(x) and f(float('nan'))[0] != f(float('nan'))[0]
        """,
    ),
    "order and truth": (
        "return sorted(xs)",
        "assert f(2, 1) < [1, 3] and f() == [] and not f() and f('b', 'a') >= ['a']",
    ),
    "annotations of a later time": (
        "return Point(1, 2).x",
        "assert f() == 1",
        """
        from __future__ import (
            annotations,
        )
        from dataclasses import dataclass
        @dataclass
        class Point:
            x: int
            y: None | Later
        """,
    ),
}
PROMPT = """
class NotThere(LookupError):
    def __init__(self, number):
        super().__init__(number)
        self.number = number

def f(*xs):
"""


def indented(text):
    return textwrap.indent(textwrap.dedent(text).strip("\n"), "    ") + "\n"


def problem(test):
    test = f"def check(f):\n{indented(test)}"
    return {"prompt": PROMPT, "entry_point": "f", "test": test}


@pytest.fixture(scope="module")
def isolation():
    return strongest()


@pytest.mark.parametrize("name", CASES)
def test_the_tests_pass_in_the_sandbox_as_they_do_in_one_process(name, isolation):
    body, test, *more = CASES[name]
    case, completion = problem(test), indented(body) + "".join(map(textwrap.dedent, more))
    if not more:
        exec(PROMPT + completion, space := {})
        exec(case["test"], space)
        space["check"](space["f"])
    assert sandbox.check(case, completion, 60.0, isolation).reason == "passed"


WRONG = {  # nothing of this passes a test that it would not pass in one process
    "the process ends where an exception is expected": (
        """
        import os
        os._exit(0)
        """,
        """
        try: f()
        except: pass
        """,
    ),
    "an answer too large where an exception is expected": (
        "return 'x' * 10**7",
        """
        try: f()
        except Exception: pass
        else: assert 0
        """,
    ),
    "an exception only named like a builtin one": (
        """
        class ValueError(Exception): pass
        raise ValueError
        """,
        """
        try: f()
        except ValueError: pass
        """,
    ),
    "an object equal to everything": (
        """
        class Any:
            __eq__ = lambda self, other: True
        return Any()
        """,
        "assert f() == 1",
    ),
    "an argument changed that should not be": (
        """
        xs[0].sort()
        return xs[0]
        """,
        """
        x = [2, 1]
        assert f(x) == [1, 2] and x == [2, 1]
        """,
    ),
    "nonsense on the pipe where an exception is expected": (
        r"""
        import os
        os.write(4, b'[]\n')
        """,
        """
        try: f()
        except Exception: pass
        """,
    ),
    "a function of the judge that runs text": (
        r"""
        import os
        os.write(4, b'["returned", ["type", "exec"], []]\n')
        """,
        "f()('1')",
    ),
    "a raised number": (
        r"""
        import os
        os.write(4, b'["raised", ["int", "0x1"], []]\n')
        """,
        """
        try: f()
        except Exception: pass
        """,
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_programs_fail(name, isolation):
    body, test = WRONG[name]
    assert not sandbox.check(problem(test), indented(body), 60.0, isolation).passed


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
    body = indented(f"raise ValueError({text})")
    reason = sandbox.check(problem("f()"), body, 60.0, isolation).reason
    assert reason.startswith(f"ValueError: {told}")
    assert reason.isprintable() and len(reason) <= 300 and reason.encode()
