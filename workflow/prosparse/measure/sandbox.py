"""Run a model-written program where it can do little harm.

Each program gets its own process in new user, mount, network, PID and IPC namespaces (Linux, unprivileged):

- no network interface, not even a configured loopback;
- the whole file system read-only; an empty 16 MiB in-memory working directory; ``/proc`` hidden;
- it sees no process outside, can start no other, and does not outlive the caller;
- limited address space, CPU time, wall-clock time and open files;
- no capabilities, an empty environment, an isolated Python (``-I -S``: standard library only).

Limits of the protection: files that the user can read stay readable (but nothing can be sent out); the boundary is the
kernel itself; a program that searches its interpreter's frames for the success token can fake a pass.
"""

from __future__ import annotations

import math
import secrets
import subprocess
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path

SECONDS = 5.0  # wall-clock and CPU time per program
MEMORY_BYTES = 1 << 30  # address space
PYTHON = (sys.executable, "-I", "-S", "-B", "-c")

#: Runs inside the sandbox: ``python -I -S -c LAUNCHER directory memory seconds token < program``.
LAUNCHER = r"""
import ctypes, os, platform, resource, signal, struct, sys
directory, memory, seconds, token = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].encode()
program = sys.stdin.buffer.read()
sys.argv[:] = sys.orig_argv[:] = ["program.py"]
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

def check(result, what):
    if result != 0:
        os.write(2, f"{what}: {os.strerror(ctypes.get_errno())}".encode())
        os._exit(99)

def write(path, text):
    with open(path, "w") as file:
        file.write(text)

user, group = os.getuid(), os.getgid()
# CLONE_NEWNS, NEWIPC, NEWUSER, NEWPID, NEWNET
check(libc.unshare(0x00020000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000), "new namespaces")
write("/proc/self/setgroups", "deny")
write("/proc/self/uid_map", f"{user} {user} 1")
write("/proc/self/gid_map", f"{group} {group} 1")
child = os.fork()  # the first process of the new PID namespace: all others die with it
if child:
    _, status = os.waitpid(child, 0)
    os._exit(0 if status == 0 else 1)
check(libc.prctl(1, signal.SIGKILL, 0, 0, 0), "die with the parent")  # PR_SET_PDEATHSIG

null = ctypes.c_void_p()
check(libc.mount(b"none", b"/", null, 0x40000 | 0x4000, null), "private mounts")  # MS_PRIVATE | MS_REC
attributes = (ctypes.c_uint64 * 4)(1, 0, 0, 0)  # MOUNT_ATTR_RDONLY
check(libc.syscall(442, -100, b"/", 0x8000, attributes, 32), "read-only file system")  # mount_setattr, AT_RECURSIVE
check(libc.mount(b"tmpfs", b"/proc", b"tmpfs", 1, b"size=4k"), "hidden /proc")  # MS_RDONLY
check(libc.mount(b"tmpfs", directory.encode(), b"tmpfs", 2 | 4, b"size=16m"), "working directory")  # NOSUID | NODEV
os.chdir(directory)

for limit, value in (
    (resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_FSIZE, 1 << 24),
    (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(limit, (value, value))
check(libc.prctl(38, 1, 0, 0, 0), "no new privileges")  # PR_SET_NO_NEW_PRIVS
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
check(libc.capset(header, (ctypes.c_uint32 * 6)()), "no capabilities")

# No second process or thread, by seccomp: RLIMIT_NPROC does not bind root.
architecture, numbers = {  # AUDIT_ARCH_*; clone, fork, vfork, clone3
    "x86_64": (0xC000003E, (56, 57, 58, 435)), "aarch64": (0xC00000B7, (220, 435)),
}.get(platform.machine(), (0, ()))
rules = [(0x20, 0, 0, 4), (0x15, 1, 0, architecture), (0x06, 0, 0, 0x80000000), (0x20, 0, 0, 0)]
rules += [(0x35, len(numbers) + 1, 0, 0x40000000)]  # the x32 interface
rules += [(0x15, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
rules += [(0x06, 0, 0, 0x7FFF0000), (0x06, 0, 0, 0x00050001)]  # allow; EPERM
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
check(libc.prctl(22, 2, struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code)), 0, 0), "one process")

answer = os.dup(1)
silent = os.open(os.devnull, os.O_RDWR)
for descriptor in (0, 1, 2):
    os.dup2(silent, descriptor)
try:
    exec(compile(program, "program.py", "exec"), {"__name__": "__main__"})
except BaseException:  # SystemExit included: leaving early is not passing
    os._exit(1)
os.write(answer, token)
os._exit(0)
"""


@cache
def available() -> str | None:
    """Why programs cannot run here, or None if they can."""
    if sys.platform != "linux":
        return f"the sandbox needs Linux namespaces, this is {sys.platform}"
    # A busy machine may be slow, so the probe waits longer than a program may run.
    passed, message = _launch("import math\nassert math.isqrt(9) == 3\n", seconds=30.0)
    return None if passed else f"the sandbox cannot start here ({message or 'no answer'})"


def passes(program: str, seconds: float = SECONDS) -> bool:
    """Whether ``program`` runs to its end without an exception, within the limits.

    Raises:
        RuntimeError: the sandbox is not available; programs never run without it.
    """
    if reason := available():
        raise RuntimeError(reason)
    return _compiles(program) and _launch(program, seconds)[0]


def _compiles(program: str) -> bool:
    """Saves a process for invalid Python, a small model's most frequent answer; compiling runs nothing."""
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(program, "program.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _launch(program: str, seconds: float) -> tuple[bool, str]:
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="prosparse-sandbox-") as directory:
        try:
            result = subprocess.run(
                [*PYTHON, LAUNCHER, str(Path(directory).resolve()), str(MEMORY_BYTES), str(math.ceil(seconds)), token],
                input=program.encode(),
                capture_output=True,
                timeout=seconds,
                env={},
                cwd="/",
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False, f"no answer within {seconds:g} s"
    message = result.stderr.decode(errors="replace").strip()
    return result.stdout == token.encode(), message.splitlines()[-1] if message else ""
