"""`prosparse` and `snakemake` without their seconds of imports: a server imports once and forks for each call.

The tests call Snakemake dozens of times, and a rehearsal is hundreds of jobs of a moment each. A stand-in for the
command hands its arguments, directory, environment and standard streams to the server, whose child does what the
command does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from functools import cache
from pathlib import Path

#: What each command imports, with what these modules import when first used.
IMPORTS = {
    "prosparse": [
        "datasets", "lm_eval.evaluator", "transformers.models.granite.modeling_granite", "prosparse.measure.benchmarks",
        "transformers.models.llama.modeling_llama", "prosparse.training.stage", "prosparse.paper.page", "altair",
        "vl_convert",
    ],
    # without huggingface_hub, which reads the environment when it is imported
    "snakemake": ["snakemake.cli", "smart_open", "prosparse.data.sources", "prosparse.paper.page"],
}  # fmt: skip

CLIENT = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
socket.send_fds(server, [b"."], [0, 1, 2])
server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
status = server.recv(1)
sys.exit(status[0] if status else 1)
"""


@cache
def warm(program: str) -> Path:
    """A folder with the stand-in for ``prosparse`` or ``snakemake``, as long as this process runs."""
    folder = Path(tempfile.mkdtemp(prefix="prosparse-warm-"))
    path, client = folder / "server", folder / program
    client.write_text(CLIENT.format(python=sys.executable, path=str(path)))
    client.chmod(0o755)
    # -P: no module beside this one is imported in place of another of its name
    server = subprocess.Popen([sys.executable, "-P", __file__, program, str(path)])
    atexit.register(_stop, server, folder)
    while not path.exists():
        if server.poll() is not None:
            raise RuntimeError(f"the server of {program} did not start")
        time.sleep(0.1)
    return folder


def _stop(server: subprocess.Popen[bytes], folder: Path) -> None:
    server.kill()
    server.wait()
    shutil.rmtree(folder, ignore_errors=True)


def serve(program: str, path: str) -> None:
    parent = os.getppid()
    for module in IMPORTS[program]:
        importlib.import_module(module)
    if program == "snakemake":
        sys.modules["snakemake.cli"].get_argument_parser()  # which imports plugins
    gc.collect()
    gc.freeze()  # the collector of a child passes over all of this
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are nobody's to wait for
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path + ".starting")
    listening.listen(64)
    listening.settimeout(1)
    os.rename(path + ".starting", path)
    while os.getppid() == parent:  # it does not outlive the tests
        try:
            connection, _ = listening.accept()
        except TimeoutError:
            continue
        if os.fork():
            connection.close()
            continue
        listening.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile("rb") as sent:
            arguments, directory, environment = json.loads(sent.readline())
        os.setsid()
        threading.Thread(target=end_with_client, args=(connection,), daemon=True).start()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        # the server's own text layers believe that they write to its log, which can be sought in; a pipe cannot
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        try:
            status = call(program, arguments)
        except SystemExit as stopped:
            status = stopped.code if isinstance(stopped.code, int) else 1
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(bytes([status]))
        os._exit(status)


def end_with_client(connection: socket.socket) -> None:
    """Kill this process and what it started when the client is gone: a test that times out leaves nothing behind."""
    if not connection.recv(1):
        os.killpg(0, signal.SIGKILL)


def call(program: str, arguments: list[str]) -> int:
    sys.argv = [program, *arguments]
    if program == "snakemake":
        from snakemake.cli import main

        main(arguments)  # always raises SystemExit
    import torch

    from prosparse.__main__ import main as prosparse

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    return prosparse(arguments)


if __name__ == "__main__":
    serve(*sys.argv[1:])
