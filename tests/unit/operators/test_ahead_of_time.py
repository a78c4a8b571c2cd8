"""The GPU kernels' machine code: wide loads, no spills, and few enough registers and shared memory to run together."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")
from prosparse.operators import gpu
from prosparse.operators.ahead_of_time import CodeFacts, code_facts

pytestmark = pytest.mark.slow
REGISTERS, SHARED_MEMORY = 65536, 164 * 1024  # of a multiprocessor of an A100; those of an H100 are no fewer
PROGRAMS = {
    "compact_kernel": 1,
    "up_kernel": gpu.UP_PROGRAMS_PER_MULTIPROCESSOR,
    "down_kernel": gpu.DOWN_PROGRAMS_PER_MULTIPROCESSOR,
    "add_splits_kernel": 1,
}
COMPILE = """
import dataclasses, json, sys, torch
from prosparse.operators import ahead_of_time
kernels = [k for capability in (80, 90) for k in ahead_of_time.compile_kernels(capability)]
ahead_of_time.SIZES = ahead_of_time.SIZES[:1]  # bfloat16 has shown what sizes change
kernels += [k for dtype in (torch.float16, torch.float32) for k in ahead_of_time.compile_kernels(80, dtype)]
json.dump([dataclasses.asdict(kernel) for kernel in kernels], sys.stdout)
"""


@pytest.fixture(scope="module")
def kernels():
    """In a process of its own: in one where kernels are interpreted, Triton cannot compile any."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", COMPILE]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)


def test_every_kernel_of_every_operator_is_there(kernels):
    uses = {(k["capability"], k["name"], use.split()[0]) for k in kernels for use in k["uses"]}
    steps = {
        "sparse_up": {"compact_kernel", "up_kernel"},
        "sparse_down": {"compact_kernel", "down_kernel", "add_splits_kernel"},
        "sparse_ffn": set(PROGRAMS),
        "linear": {"compact_kernel", "up_kernel"},
    }
    assert uses == {(c, kernel, name) for c in (80, 90) for name, used in steps.items() for kernel in used}


def test_weights_are_read_16_bytes_at_a_time_and_once(kernels):
    for kernel in kernels:
        widths = kernel["code"]["weight_load_widths"]
        assert set(widths) <= {16}, kernel
        itemsize = 4 if kernel["dtype"] == "float32" else 2
        read = sum(widths) * kernel["threads"] // itemsize
        if kernel["name"] == "up_kernel":  # one row at a time
            assert all(f" {read} x " in use for use in kernel["uses"]), kernel
        elif kernel["name"] == "down_kernel":
            assert read == gpu.DOWN_BLOCK_NEURONS * gpu.DOWN_BLOCK_HIDDEN, kernel
        else:
            assert read == 0, kernel


def test_nothing_spills(kernels):
    for kernel in kernels:
        code = kernel["code"]
        assert code["stack"] == code["spill_stores"] == code["spill_loads"] == 0, kernel
        assert code["local_memory_instructions"] == 0, kernel


def test_programs_fit_on_a_multiprocessor_together(kernels):
    for kernel in kernels:
        programs = PROGRAMS[kernel["name"]]
        if kernel["dtype"] == "float32" and kernel["name"] == "down_kernel":
            programs //= 2  # twice the bytes in flight of each
        # registers are handed out by 8 a thread
        registers = -(-kernel["code"]["registers"] // 8) * 8 * kernel["threads"]
        assert programs * registers <= REGISTERS, kernel
        assert programs * (kernel["shared_memory"] + 1024) <= SHARED_MEMORY, kernel  # 1 KiB each is the system's
        assert kernel["threads"] * programs <= 2048, kernel


def test_float32_is_neither_rounded_nor_flushed(kernels):
    for kernel in kernels:
        assert not kernel["code"]["uses_tensor_cores"], kernel
        assert not kernel["code"]["flushes_denormals"], kernel


# The reader itself: a kernel of our own, small enough to know what is in it.
PTX = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry kernel(.param .u64 source, .param .u64 target)
{
    .reg .b64 %rd<9>;
    .reg .b32 %r<99>;
    .reg .f32 %f<9>;
    ld.param.u64 %rd1, [source];
    ld.param.u64 %rd2, [target];
    LOADS
    STORES
    ret;
}
"""


def facts(loads: str, stores: str, *options: str) -> CodeFacts:
    return code_facts(PTX.replace("LOADS", loads).replace("STORES", stores), 80, *options)


def test_reader_finds_loads_and_their_marks():
    found = facts(
        """
        ld.global.L1::evict_first.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1];
        ld.global.v2.b32 {%r5, %r6}, [%rd1+64];
        ld.global.b32 %r7, [%rd1+128];
        ld.global.u16 %r8, [%rd1+196];
        """,
        "".join(f"st.global.b32 [%rd2+{4 * i}], %r{i};" for i in range(1, 9)),
    )
    assert sorted(found.global_load_widths) == [2, 4, 8, 16]
    assert found.weight_load_widths == [16]
    assert (found.spill_stores, found.spill_loads, found.local_memory_instructions) == (0, 0, 0)
    assert not found.flushes_denormals


def test_reader_finds_spills():
    loads = "".join(f"ld.volatile.global.b32 %r{i}, [%rd1+{4 * i}];" for i in range(90))
    stores = "".join(f"st.volatile.global.b32 [%rd2+{4 * i}], %r{89 - i};" for i in range(90))
    roomy = facts(loads, stores)
    assert (roomy.spill_stores, roomy.spill_loads, roomy.stack, roomy.local_memory_instructions) == (0, 0, 0, 0)
    assert roomy.registers >= 90
    tight = facts(loads, stores, "--maxrregcount=32")
    assert tight.registers <= 32
    assert min(tight.spill_stores, tight.spill_loads, tight.stack) >= 4 * (90 - 32)
    assert tight.local_memory_instructions >= 2


def test_reader_finds_flushed_denormals():
    code = "ld.global.f32 %f1, [%rd1]; ld.global.f32 %f2, [%rd1+4]; mul.FTZf32 %f3, %f1, %f2;"
    store = "st.global.f32 [%rd2], %f3;"
    assert facts(code.replace("FTZ", "ftz."), store).flushes_denormals
    assert not facts(code.replace("FTZ", ""), store).flushes_denormals


def test_reader_finds_tensor_cores():
    code = "".join(f"ld.global.b32 %r{i}, [%rd1+{4 * i}];" for i in range(6))
    code += "".join(f"ld.global.f32 %f{i}, [%rd1+{4 * i + 24}];" for i in range(4))
    code += "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f0, %f1, %f2, %f3}, "
    code += "{%r0, %r1, %r2, %r3}, {%r4, %r5}, {%f0, %f1, %f2, %f3};"
    assert facts(code, "".join(f"st.global.f32 [%rd2+{4 * i}], %f{i};" for i in range(4))).uses_tensor_cores


COMPILE_FOR_AMD = """
import json, re, sys, torch, triton
from triton.backends.compiler import GPUTarget
from prosparse.operators import ahead_of_time
found = []
for architecture in ("gfx90a", "gfx942"):
    target = GPUTarget("hip", architecture, 64)
    for _, launch in ahead_of_time._launches(torch.bfloat16, 1, 104):
        source, options = ahead_of_time._specialise(launch, target)
        compiled = triton.compile(source, target=target, options=options)
        code = compiled.asm["amdgcn"]
        found.append([
            source.name, compiled.metadata.num_warps, compiled.metadata.shared,
            int(re.search(r"max_flat_workgroup_size: *(\\d+)", code)[1]),
            list(map(int, re.findall(r"vgpr_spill_count: *(\\d+)", code))),
            len(re.findall(r"_load_dwordx4 ", code)), launch.arguments.get("HIDDEN_SIZE"),
        ])
json.dump(found, sys.stdout)
"""


def test_kernels_compile_for_amd_gpus_with_as_many_threads():
    """For an MI200 and an MI300, where 64 threads are a warp."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", COMPILE_FOR_AMD]
    found = json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
    assert {name for name, *_ in found} == set(PROGRAMS)
    for name, warps, shared_memory, threads, spills, wide_loads, hidden_size in found:
        assert 64 * warps == threads <= 1024, name  # a workgroup's most
        assert threads == (gpu.COMPACT_THREADS if name == "compact_kernel" else 128), name
        assert shared_memory <= 64 * 1024, name
        assert spills == [0], name
        # 16 bytes at a time: a row of weights and x; a block of weights
        if name == "up_kernel":
            assert wide_loads * threads * 16 >= 2 * 2 * hidden_size
        elif name == "down_kernel":
            assert wide_loads * threads * 16 >= 2 * gpu.DOWN_BLOCK_NEURONS * gpu.DOWN_BLOCK_HIDDEN
