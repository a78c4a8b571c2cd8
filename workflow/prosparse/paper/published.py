"""The paper's numbers (``workflow/paper/*.csv``) and the shape of its result tables."""

from __future__ import annotations

import csv
from functools import cache

from prosparse.config import PUBLISHED

#: The seven columns of average performance and the benchmarks each is the unweighted mean of.
GROUPS: dict[str, tuple[str, ...]] = {
    "code_generation": ("humaneval", "mbpp"),
    "commonsense_reasoning": ("piqa", "siqa", "hellaswag", "winogrande", "copa"),
    "reading_comprehension": ("boolq", "lambada", "tydiqa"),
    "gsm8k": ("gsm8k",),
    "mmlu": ("mmlu",),
    "bbh": ("bbh",),
    "agi_eval": ("agi_eval",),
}

BENCHMARKS = tuple(benchmark for group in GROUPS.values() for benchmark in group)

LABELS = {
    "code_generation": "Code Generation",
    "commonsense_reasoning": "Commonsense Reasoning",
    "reading_comprehension": "Reading Comprehension",
    "gsm8k": "GSM8K",
    "mmlu": "MMLU",
    "bbh": "BBH",
    "agi_eval": "AGI Eval",
    "average_performance": "Average Performance",
    "average_sparsity": "Average Sparsity",
    "humaneval": "HumanEval",
    "mbpp": "MBPP",
    "piqa": "PIQA",
    "siqa": "SIQA",
    "hellaswag": "HellaSwag",
    "winogrande": "WinoGrande",
    "copa": "COPA",
    "boolq": "BoolQ",
    "lambada": "LAMBADA",
    "tydiqa": "TyDi QA",
    "mixed": "Mixed",
    "starcoder": "StarCoder",
    "wikipedia": "Wikipedia",
    "pile": "Pile",
    "ultrachat": "UltraChat",
    "choice_p3": "Choice (P3)",
    "paq": "PAQ",
    "flan": "Flan",
    "unnatural_instructions": "Unnatural Instructions",
    "super_natural_instructions": "Super-Natural Instructions",
}

#: What the rows of one scale are called: the original, ProSparse without and with threshold shifting.
SCALES = {
    "7B": ("LLaMA2-7B", "ProSparse-7B*", "ProSparse-7B"),
    "13B": ("LLaMA2-13B", "ProSparse-13B*", "ProSparse-13B"),
    "1B": ("MiniCPM-1B", "ProSparse-1B*", "ProSparse-1B"),
}

#: Figure 3's fit: sparsity(%) = 100 - exp(a lambda^b + c).
FIGURE3_FIT = (-1.76, 0.30, 3.49)


@cache
def rows(table: str) -> tuple[dict[str, str], ...]:
    """Rows of ``workflow/paper/{table}.csv``, every cell as printed."""
    with open(PUBLISHED / f"{table}.csv", newline="") as file:
        return tuple(csv.DictReader(file))


@cache
def tokens() -> dict[str, str]:
    """Billions of tokens that settings of Table 1 were trained on after their start, where a table prints them."""
    found = {}
    for table in ("table6_stages_llama2", "table7_stages_minicpm"):
        for row in rows(table):  # in order: a model's last stage stays
            for setting in (f"ProSparse-{row['model']}", f"ProSparse-{row['model']}*"):
                found[setting] = row["accumulated_tokens_billion"]
    early = {(row["setting"], row["average_sparsity"]) for row in rows("table1_early_baselines")}
    for row in rows("table4_regularization_free"):
        if (f"{row['setting']}-7B", row["average_sparsity"]) in early:  # which of its budgets Table 1 repeats
            found[f"{row['setting']}-7B"] = row["accumulated_tokens_billion"]
    return found
