from __future__ import annotations

from pathlib import Path

import pytest

from prosparse.system.provenance import processor


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["model name\t: AMD EPYC", "flags\t\t: fpu avx2 fma"], "AMD EPYC (AVX2), "),
        (["model name\t: AMD EPYC", "flags\t\t: avx2 avx512f avx512_vnni avx512_bf16"], "AMD EPYC (AVX-512 BF16), "),
        (
            ["model name\t: Intel(R) Xeon(R)", "flags\t\t: avx2 avx512f amx_bf16 avx512_bf16"],
            "Intel(R) Xeon(R) (AMX), ",
        ),
        (["model name\t: ARMv8", "Features\t: asimd"], "ARMv8, "),
    ],
)
def test_a_processor_is_named_with_its_vector_instructions(tmp_path: Path, lines: list[str], expected: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("\n".join([*lines, "", *lines, ""]), encoding="utf-8")
    assert processor(cpuinfo).startswith(expected)


def test_a_processor_without_a_name_is_still_described(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\n", encoding="utf-8")
    for file in ("cpuinfo", "missing"):
        assert processor(tmp_path / file).rpartition(", ")[2].endswith(("core", "cores"))
