"""The command line runs on Linux, macOS and WSL: no Linux-only call is on the client's path.

The client's path is `ftcloud/`, `dispatcher/`, `providers/`, and whatever of `trainer_image/` these import,
found by following the import statements. What only Linux has may stand in a function that asks for the
platform first. `make check` types the same code as macOS, which finds what this list does not know.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ("ftcloud", "dispatcher", "providers")

LINUX_PATH = re.compile(r"^/(proc|sys|run)(/|$)|^/dev/shm|^/etc/os-release|^libc\.so")
LINUX_CALL = re.compile(
    r"^(sched_\w+|pidfd_\w+|memfd_\w+|eventfd\w*|timerfd\w*|inotify\w*|epoll|EPOLL\w+|prctl|PR_\w+|unshare|setns"
    r"|splice|copy_file_range|posix_fadvise|posix_fallocate|fdatasync|getrandom|[gs]etxattr|listxattr|removexattr"
    r"|O_TMPFILE|O_DIRECT|O_PATH|F_OFD_\w+|F_SETPIPE_SZ|F_GETPIPE_SZ|F_ADD_SEALS|SO_PEERCRED|AF_NETLINK|AF_ALG"
    r"|MAP_POPULATE|CLONE_\w+|sigtimedwait|sigwaitinfo|cpu_affinity|ionice|rlimit|prlimit|accept4|pipe2"
    r"|[gs]etres[ug]id)$"
)
LINUX_COMMANDS = frozenset(
    {
        *(
            "apt",
            "apt-get",
            "dpkg",
            "flock",
            "free",
            "ionice",
            "ip",
            "journalctl",
            "ldconfig",
            "lsblk",
            "lscpu",
        ),
        *(
            "nproc",
            "prlimit",
            "pidof",
            "setsid",
            "ss",
            "stdbuf",
            "systemctl",
            "systemd-run",
            "taskset",
            "timeout",
        ),
    }
)
STARTS_PROCESS = frozenset(
    {"run", "Popen", "call", "check_call", "check_output", "system", "execvp", "which"}
)


def client_files() -> set[Path]:
    files = {path for folder in CLIENT for path in (ROOT / folder).rglob("*.py")}
    pending = set(files)
    while pending:
        found = {path for path in imported_files(pending.pop()) if path not in files}
        files |= found
        pending |= found
    return files


def imported_files(file: Path) -> Iterator[Path]:
    """Our own modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            path = ROOT / (name.replace(".", "/") + ".py")
            if path.exists():
                yield path


def linux_only(source: str) -> list[str]:
    """`LINE: WHAT` for each Linux-only path, name or command outside functions that ask for the platform."""
    tree = ast.parse(source)
    guarded = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and asks_for_platform(node)
        for inner in ast.walk(node)
    }
    documentation = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found = []
    for node in ast.walk(tree):
        if node not in guarded and node not in documentation and (what := named(node)):
            found.append(f"{getattr(node, 'lineno', 0)}: {what}")
    return found


def asks_for_platform(function: ast.FunctionDef) -> bool:
    text = ast.unparse(function)
    return "platform.system()" in text or "sys.platform" in text or "except AttributeError" in text


def named(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and LINUX_PATH.search(node.value):
        return node.value
    if isinstance(node, ast.Attribute) and LINUX_CALL.search(node.attr):
        return node.attr
    if isinstance(node, ast.alias) and LINUX_CALL.search(node.name):
        return node.name
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        if called in STARTS_PROCESS and node.args:
            return linux_command(node.args[0])
    return None


def linux_command(argument: ast.expr) -> str | None:
    first = argument.elts[0] if isinstance(argument, ast.List | ast.Tuple) and argument.elts else argument
    if isinstance(first, ast.Constant) and isinstance(first.value, str):
        words = first.value.split()
        return words[0] if words and words[0] in LINUX_COMMANDS else None
    return None


def test_no_linux_only_call_is_on_the_clients_path() -> None:
    found = {
        str(file.relative_to(ROOT)): lines
        for file in sorted(client_files())
        if (lines := linux_only(file.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_the_clients_path_reaches_what_it_imports_from_the_machine_side() -> None:
    names = {str(file.relative_to(ROOT)) for file in client_files()}
    assert {"dispatcher/cli/main.py", "providers/local.py", "trainer_image/trainer/hardware.py"} <= names
    assert "trainer_image/trainer/train.py" not in names


@pytest.mark.parametrize(
    "planted",
    [
        'Path("/proc/cpuinfo").read_text()',
        'open("/sys/class/net")',
        "os.sched_getaffinity(0)",
        "os.pidfd_open(1)",
        "from os import memfd_create",
        "fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1)",
        "fcntl.fcntl(1, fcntl.F_OFD_SETLK)",
        "os.fdatasync(1)",
        'ctypes.CDLL("libc.so.6").prctl(1)',
        'subprocess.run(["setsid", "python"])',
        'os.system("taskset -c 0 python")',
        'shutil.which("systemctl")',
        "psutil.Process().cpu_affinity()",
    ],
)
def test_a_planted_linux_only_call_is_found(planted: str) -> None:
    assert len(linux_only(f"import x\n{planted}\n")) >= 1
    assert len(linux_only(f"def f():\n    {planted}\n")) >= 1


def test_a_function_that_asks_for_the_platform_may_use_it() -> None:
    assert linux_only('def f():\n    if sys.platform == "linux":\n        return open("/proc/stat")\n') == []
    assert linux_only('"""Reads /proc on Linux."""\nx = "processor"\n') == []
