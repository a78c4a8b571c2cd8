"""Compile the GPU kernels without a GPU, and read from their code how they will run.

gpu.py's own plans provide the launches, for tensors without data, and Triton's own binder specializes each call to its
arguments, so the code under inspection is the code that such tensors would run on the device.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import create_function_from_signature

from prosparse.operators import gpu
from prosparse.operators.gpu import Launch

#: (hidden_size, intermediate_size) of LLaMA-2 7B and 13B.
SIZES = ((4096, 11008), (5120, 13824))
THRESHOLD = 0.01
#: Multiprocessors of the smallest device of each compute capability: an A100 and an H100 PCIe.
MULTIPROCESSORS = {80: 108, 90: 114}


@dataclass(frozen=True)
class CodeFacts:
    """Facts about one kernel from ptxas and the disassembler; sizes are in bytes per thread unless noted."""

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    local_memory_instructions: int
    #: Widths in bytes of the loads from global memory, in code order.
    global_load_widths: list[int]
    #: Widths of those marked evict-first: the loads of weight rows, which are read once.
    weight_load_widths: list[int]
    #: Whether any instruction flushes denormals to 0.
    flushes_denormals: bool
    #: Whether any instruction uses tensor cores, which would round float32 to TF32.
    uses_tensor_cores: bool


@dataclass(frozen=True)
class CompiledKernel:
    """One kernel variant. ``uses`` names the operators and sizes that launch it."""

    name: str
    capability: int
    #: dtype of the weights.
    dtype: str
    uses: list[str]
    threads: int
    #: Bytes per program, static plus dynamic.
    shared_memory: int
    code: CodeFacts


def _tool(name: str) -> str:
    return str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name)


def _architecture(capability: int) -> str:
    """Return the architecture that Triton compiles for; from Hopper on, with architecture-specific features."""
    return f"sm_{capability}a" if capability >= 90 else f"sm_{capability}"


def code_facts(ptx: str, capability: int, *options: str) -> CodeFacts:
    """Assemble PTX as Triton does, with any additional ptxas ``options``, and inspect the result.

    Raises:
        subprocess.CalledProcessError: ptxas rejected the code or an option.
        ValueError: ptxas did not report the resources of exactly one kernel.
    """
    with tempfile.TemporaryDirectory() as directory:
        source, binary = Path(directory, "kernel.ptx"), Path(directory, "kernel.cubin")
        source.write_text(ptx, encoding="utf-8")
        # as in triton.backends.nvidia.compiler.CUDABackend.make_cubin
        command = [_tool("ptxas"), "-lineinfo", "-v", "--regAllocOptLevel=2", f"--gpu-name={_architecture(capability)}"]
        log = subprocess.run(
            [*command, *options, str(source), "-o", str(binary)],
            check=True,
            capture_output=True,
            text=True,
            encoding="utf-8",
        ).stderr
        machine_code = subprocess.run(
            [_tool("cuobjdump"), "-sass", str(binary)], check=True, capture_output=True, text=True, encoding="utf-8"
        ).stdout
    registers = re.findall(r"Used (\d+) registers", log)
    memory = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    if len(registers) != 1 or len(memory) != 1:
        raise ValueError(f"ptxas reports {len(registers)} kernels, not 1:\n{log}")
    stack, spill_stores, spill_loads = map(int, memory[0])
    # "@P0 LDG.E.EF.128 R4, [R2.64] ;": width in bits if not 32, EF for evict-first
    instructions = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)", machine_code, re.MULTILINE)
    loads = [_load(instruction) for instruction in instructions if instruction.startswith("LDG.")]
    return CodeFacts(
        registers=int(registers[0]),
        stack=stack,
        spill_stores=spill_stores,
        spill_loads=spill_loads,
        local_memory_instructions=sum(i.split(".")[0] in ("LDL", "STL") for i in instructions),
        global_load_widths=[width for width, _ in loads],
        weight_load_widths=[width for width, evict_first in loads if evict_first],
        flushes_denormals=any("FTZ" in i.split(".") for i in instructions),
        uses_tensor_cores=any("MMA" in i.split(".")[0] for i in instructions),
    )


def _load(instruction: str) -> tuple[int, bool]:
    """Return the width in bytes of a load like ``LDG.E.EF.128``, and whether it is marked evict-first."""
    parts = instruction.split(".")
    widths = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}
    return next((widths[part] for part in parts if part in widths), 4), "EF" in parts


def _specialise(launch: Launch, target: GPUTarget) -> tuple[ASTSource, dict[str, Any]]:
    """Return the source and options of the code that Triton would compile for this call on the target."""
    backend = make_backend(target)
    kernel = launch.kernel
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = bind(**launch.call(target.warp_size), debug=False)
    parsed, signature, constants, attributes = kernel._pack_args(backend, options, bound, specialization, options)
    return ASTSource(kernel, signature, constants, attributes), parsed.__dict__


def _launches(dtype: torch.dtype, batch: int, multiprocessors: int) -> list[tuple[str, Launch]]:
    found = []
    for hidden_size, intermediate_size in SIZES:
        x, gate, weight = (
            torch.empty(*shape, dtype=dtype, device="meta")
            for shape in ((batch, hidden_size), (batch, intermediate_size), (intermediate_size, hidden_size))
        )
        plans = {
            "sparse_up": gpu.plan_up(x, gate, weight, THRESHOLD, multiprocessors),
            "sparse_down": gpu.plan_down(gate, weight, multiprocessors),
            "sparse_ffn": gpu.plan_ffn(x, gate, weight, weight, THRESHOLD, multiprocessors),
            "linear": gpu.plan_linear(x, weight, gate, THRESHOLD, multiprocessors),
        }
        for name, (_, launches) in plans.items():
            found += [(f"{name} {hidden_size} x {intermediate_size}", launch) for launch in launches]
    return found


def compile_kernels(capability: int, dtype: torch.dtype = torch.bfloat16, batch: int = 1) -> list[CompiledKernel]:
    """Compile every kernel variant that the operators launch for LLaMA-2's sizes.

    Args:
        capability: compute capability times 10, one of MULTIPROCESSORS.
        dtype: dtype of the weights.
        batch: number of tokens.

    Raises:
        RuntimeError: Triton interprets kernels in this process (TRITON_INTERPRET), so it cannot compile them.
    """
    if not isinstance(gpu.up_kernel, triton.JITFunction):
        raise RuntimeError("kernels cannot be compiled in a process that interprets them: unset TRITON_INTERPRET")
    target = GPUTarget("cuda", capability, 32)
    variants: dict[str, tuple[Any, dict[str, Any], list[str]]] = {}
    for use, launch in _launches(dtype, batch, MULTIPROCESSORS[capability]):
        source, options = _specialise(launch, target)
        _, _, uses = variants.setdefault(source.hash(), (source, options, []))
        uses.append(use)
    found = []
    for source, options, uses in variants.values():
        compiled = triton.compile(source, target=target, options=options)
        found.append(
            CompiledKernel(
                name=source.name,
                capability=capability,
                dtype=str(dtype).removeprefix("torch."),
                uses=uses,
                threads=32 * compiled.metadata.num_warps,
                shared_memory=compiled.metadata.shared,
                code=code_facts(compiled.asm["ptx"], capability),
            )
        )
    return found
