"""Each kind of escape: what stops it, what does not, and when the weak isolation is taken."""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
from confined import RIGHT, SQUARE, says

from dlmdecode.evals import sandbox, sandbox_calls
from dlmdecode.evals.functions_task import Functions
from dlmdecode.evals.humaneval import HumanEval
from dlmdecode.evals.sandbox import obstacle

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
    if os.uname().sysname != "Linux" or os.uname().machine not in sandbox_calls.ARCHITECTURES:
        pytest.skip("no filter for this machine")
    for isolation, refused in (("namespaces", [True] * 4 + [False] * 2), ("weak", [True] * 6)):
        out = subprocess.run(
            [sys.executable, "-c", tried, sandbox_calls.__file__, isolation],
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
def test_root_that_can_be_no_other_user_runs_no_program():
    code = f"{SANDBOX_ALONE}sandbox.check({SQUARE!r}, {RIGHT!r}, 60.0, 'weak')"
    without = ["setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid"]
    out = subprocess.run([*without, sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 1 and "no program runs as root" in out.stderr


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
