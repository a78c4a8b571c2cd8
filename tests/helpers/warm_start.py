"""`prosparse` without its seconds of imports: a server imports once and forks for each call.

A rehearsal is hundreds of jobs of a moment each. ``warm_start(folder)`` puts a stand-in for the command into
``folder``, to go first on PATH; a call hands its arguments, directory, environment and standard streams to
the server, whose child does what the command does.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLIENT = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({path!r})
socket.send_fds(server, [b"."], [0, 1, 2])
server.sendall(json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode())
server.shutdown(socket.SHUT_WR)
status = server.recv(1)
sys.exit(status[0] if status else 1)
"""


@contextmanager
def warm_start(folder: Path) -> Iterator[Path]:
    """A folder with the stand-in for ``prosparse``, while the block is open."""
    path = folder / "server"
    client = folder / "prosparse"
    client.write_text(CLIENT.format(python=sys.executable, path=str(path)))
    client.chmod(0o755)
    server = subprocess.Popen([sys.executable, "-P", __file__, str(path)])  # -P: no module beside it is imported
    try:
        while not path.exists():
            if server.poll() is not None:
                raise RuntimeError("the warm start's server did not start")
            time.sleep(0.1)
        yield folder
    finally:
        server.kill()
        server.wait()


def serve(path: str) -> None:
    # what the commands import, with what these import when first used
    for module in (
        "datasets", "lm_eval.evaluator", "transformers.models.granite.modeling_granite", "prosparse.measure.benchmarks",
        "transformers.models.llama.modeling_llama", "prosparse.training.stage", "prosparse.paper.page",
    ):  # fmt: skip
        importlib.import_module(module)
    import torch

    from prosparse.__main__ import main

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are nobody's to wait for
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path + ".starting")
    listening.listen(64)
    os.rename(path + ".starting", path)
    while True:
        connection, _ = listening.accept()
        if os.fork():
            connection.close()
            continue
        listening.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _, streams, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile("rb") as sent:
            arguments, directory, environment = json.loads(sent.read())
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        # the server's own text layers believe that they write to its log, which can be sought in; a pipe cannot
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", 1)))
        sys.argv = ["prosparse", *arguments]
        try:
            status = main(arguments)
        except SystemExit as stopped:
            status = stopped.code if isinstance(stopped.code, int) else 1
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        connection.send(bytes([status]))
        os._exit(status)


if __name__ == "__main__":
    serve(sys.argv[1])
