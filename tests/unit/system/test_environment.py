"""What is left in the environment, and where it is that the workflow runs."""

from __future__ import annotations

import os
import sysconfig

import pytest

from prosparse.system import environment

TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "left",
    [
        {"RANK": "0"},
        {"WORLD_SIZE": "4"},
        {"LOCAL_RANK": "0"},
        {"RANK": "0", "WORLD_SIZE": "2"},
        {name: value for name, value in TORCHRUN.items() if name != "LOCAL_RANK"},  # a pod of Kubeflow's PyTorchJob
        TORCHRUN | {"RANK": "2", "LOCAL_RANK": "2"},  # no process of two
        TORCHRUN | {"RANK": ""},
        TORCHRUN | {"WORLD_SIZE": "two"},
        TORCHRUN | {"MASTER_PORT": "none"},
        TORCHRUN | {"MASTER_ADDR": ""},
        TORCHRUN | {"LOCAL_RANK": "-1"},
    ],
    ids=lambda left: " ".join(f"{name}={value}" for name, value in left.items()),
)
def test_what_is_left_of_a_launcher_is_dropped_and_named(left):
    found = {**left, "HOME": "/home"}
    said = environment.settle_launcher(found)
    assert found == {"HOME": "/home"}
    assert said is not None
    assert all(f"{name}={value}" in said for name, value in left.items())
    assert "\n" not in said


@pytest.mark.parametrize("whole", [TORCHRUN, TORCHRUN | {"RANK": "9", "WORLD_SIZE": "16"}, {"HOME": "/home"}])
def test_a_launchers_process_stays_one(whole):
    found = dict(whole)
    assert environment.settle_launcher(found) is None
    assert found == whole


def test_only_torchruns_others_are_silent():
    assert environment.speaks_for_job({})
    assert environment.speaks_for_job({"RANK": "3"})
    assert environment.speaks_for_job(TORCHRUN)
    assert environment.speaks_for_job(TORCHRUN | {"RANK": "0", "TORCHELASTIC_RUN_ID": "x"})
    assert not environment.speaks_for_job(TORCHRUN | {"TORCHELASTIC_RUN_ID": "x"})


def test_own_commands_come_first_unless_their_folder_is_on_path():
    scripts = sysconfig.get_path("scripts")
    found = {"PATH": "/usr/bin"}
    environment.prepare_jobs(found)
    assert found["PATH"] == f"{scripts}{os.pathsep}/usr/bin"
    arranged = {"PATH": os.pathsep.join(["/first", scripts])}
    environment.prepare_jobs(arranged)
    assert arranged == {"PATH": os.pathsep.join(["/first", scripts]), "PYTHONUTF8": "1"}
