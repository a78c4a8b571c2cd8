"""The paper's tables as printed (``data/*.csv``), and their row and column names."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

#: Folder of the paper's data.
DATA = Path(__file__).with_name("data")


#: The seven columns behind the average performance; each is the unweighted mean of its benchmarks.
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
    "mmlu_likelihood": "MMLU by likelihood",
    "bbh_likelihood": "BBH by likelihood",
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

#: Names of each scale's rows: the original model, then ProSparse without and with threshold shifting.
SCALES = {
    "7B": ("LLaMA2-7B", "ProSparse-7B*", "ProSparse-7B"),
    "13B": ("LLaMA2-13B", "ProSparse-13B*", "ProSparse-13B"),
    "1B": ("MiniCPM-1B", "ProSparse-1B*", "ProSparse-1B"),
}

#: Figure 3's fit: sparsity(%) = 100 - exp(a lambda^b + c).
FIGURE3_FIT = (-1.76, 0.30, 3.49)


@cache
def published_table(table: str) -> tuple[dict[str, str], ...]:
    """Read the rows of ``data/{table}.csv``, every cell as printed."""
    with open(DATA / f"{table}.csv", newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


@cache
def published_tokens() -> dict[str, str]:
    """Return setting of Table 1 -> billions of tokens of continued training, where a table prints them."""
    found = {}
    for table in ("table6_stages_llama2", "table7_stages_minicpm"):
        for row in published_table(table):  # in order, so that a model's last stage wins
            for setting in (f"ProSparse-{row['model']}", f"ProSparse-{row['model']}*"):
                found[setting] = row["accumulated_tokens_billion"]
    early = {(row["setting"], row["average_sparsity"]) for row in published_table("table1_early_baselines")}
    for row in published_table("table4_regularization_free"):
        if (f"{row['setting']}-7B", row["average_sparsity"]) in early:  # the budget that Table 1 repeats
            found[f"{row['setting']}-7B"] = row["accumulated_tokens_billion"]
    return found


#: Published tables whose rows our runs stand for, and the columns that name a row.
ROW_KEYS = {
    "table1_overall": ("setting",),
    "table1_early_baselines": ("setting",),
    "table4_regularization_free": ("setting", "accumulated_tokens_billion"),
    "table5_constant_factor": ("scale", "lambda"),
    "table9_threshold_sweep": ("model", "threshold"),
}


def row_key(table: str, row: dict[str, str]) -> str:
    """Return the key that names a row in a config: ``ProSparse-7B*``, ``7B 5e-2``, ..."""
    return " ".join(row[column] for column in ROW_KEYS[table])


@cache
def row_keys() -> tuple[str, ...]:
    """Return the keys of all rows that a run can stand for.

    Tables 1, 2, 3 and 8 share their settings; Table 4 adds the tokens in billions, Table 5 the scale and lambda,
    Table 9 the model and threshold.
    """
    return tuple(dict.fromkeys(row_key(table, row) for table in ROW_KEYS for row in published_table(table)))
