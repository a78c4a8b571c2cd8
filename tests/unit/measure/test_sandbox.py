"""The sandbox against programs that misbehave in one way each."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from prosparse.measure import sandbox

needs_sandbox = pytest.mark.skipif(sandbox.available() is not None, reason=str(sandbox.available()))


@needs_sandbox
def test_a_correct_program_passes_and_a_wrong_one_fails() -> None:
    assert sandbox.passes("def double(x):\n    return 2 * x\n\nassert double(3) == 6\n")
    assert not sandbox.passes("def double(x):\n    return x\n\nassert double(3) == 6\n")


@needs_sandbox
@pytest.mark.parametrize(
    "program",
    ["this is not python", "1 / 0", "raise SystemExit(0)", "import os; os._exit(0)", "print('ok'); exit()", "\ud800"],
)
def test_ending_early_or_badly_is_not_passing(program: str) -> None:
    assert not sandbox.passes(program)


@needs_sandbox
@pytest.mark.parametrize("program", ["while True:\n    pass\n", "import time\ntime.sleep(60)\n"])
def test_an_endless_program_is_killed(program: str) -> None:
    started = time.monotonic()
    assert not sandbox.passes(program, seconds=1.0)
    assert time.monotonic() - started < 4


@needs_sandbox
def test_a_memory_hog_fails_at_the_limit() -> None:
    assert sandbox.passes("block = bytearray(100 * 2**20)")
    assert not sandbox.passes(f"block = bytearray({sandbox.MEMORY_BYTES})")


@needs_sandbox
def test_no_network_not_even_loopback() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=1)\n"
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            pass  # the same connection works outside
        assert not sandbox.passes(connect)
    assert sandbox.passes("import socket\nassert [name for _, name in socket.if_nameindex()] in ([], ['lo'])\n")


@needs_sandbox
def test_writes_only_inside_its_own_directory(tmp_path: Path) -> None:
    victim = tmp_path / "kept.txt"
    victim.write_text("before")
    assert not sandbox.passes(f"open({str(victim)!r}, 'w').write('after')")
    assert not sandbox.passes(f"import os\nos.remove({str(victim)!r})")
    assert not sandbox.passes(f"open({str(tmp_path / 'new.txt')!r}, 'w')")
    assert victim.read_text() == "before"
    assert list(tmp_path.iterdir()) == [victim]
    assert sandbox.passes("open('own.txt', 'w').write('fine')\nassert open('own.txt').read() == 'fine'\n")
    assert not sandbox.passes("for n in range(40):\n    open(f'{n}', 'wb').write(bytes(2**20))\n")


@needs_sandbox
def test_cannot_lift_its_own_limits(tmp_path: Path) -> None:
    remount = (
        "import ctypes\nlibc = ctypes.CDLL(None)\n"
        "libc.mount(None, b'/', None, 0x20 | 0x1000, None)\n"  # MS_REMOUNT | MS_BIND, writable again
        f"open({str(tmp_path / 'escaped')!r}, 'w')\n"
    )
    assert not sandbox.passes(remount)
    # nor from a second pair of user and mount namespaces, where it has capabilities again
    assert not sandbox.passes(remount.replace("libc.mount", "libc.unshare(0x10020000); libc.mount"))
    assert not (tmp_path / "escaped").exists()
    assert not sandbox.passes("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))")


@needs_sandbox
def test_sees_no_other_process_and_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_VALUE", "1")
    assert sandbox.passes("import os\nassert 'SECRET_VALUE' not in os.environ\nassert os.getpid() == 1\n")
    assert not sandbox.passes(f"import os\nos.kill({os.getpid()}, 0)")
    assert sandbox.passes("import os\nassert os.listdir('/proc') == []")


@needs_sandbox
@pytest.mark.parametrize("program", ["import os; os.fork()", "import threading as t; t.Thread(target=print).start()"])
def test_starts_no_other_process_or_thread(program: str) -> None:
    assert not sandbox.passes(program)


def test_nothing_runs_where_the_sandbox_is_not_available(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "available", lambda: "no namespaces")
    with pytest.raises(RuntimeError, match="no namespaces"):
        sandbox.passes(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert list(tmp_path.iterdir()) == []
