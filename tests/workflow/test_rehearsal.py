"""Every shipped experiment, end to end at toy width: no path of a large run is first taken on a paid GPU."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from helpers.rehearsal import rehearse
from helpers.repository import EXPERIMENTS
from helpers.workflow import snakemake, warm_jobs
from safetensors.torch import load_file

from prosparse.data.mixture import load_rows
from prosparse.models.load import load


def run(root: Path, config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return snakemake(root, *arguments, config=config, environment=warm_jobs(), timeout=1200)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_rehearsal(tmp_path, path):
    config = rehearse(path, tmp_path)
    written = yaml.safe_load(config.read_text())
    name, targets = written["experiment"], ["all", *(["release"] if written["release"] else [])]
    bases = written["bases"]
    if path.stem == "paper":  # as on its cluster: λ is calibrated first, then two stages of sharded weights
        stage = f"results/{name}/checkpoints/prosparse-7b/seed0/stage1/provenance.json"
        early = run(tmp_path, config, stage, "--cores", "2")
        assert early.returncode != 0
        assert (
            "runs.prosparse-7b: its λ are the paper's, whose normalization is unknown: run `snakemake calibrate`"
            in early.stdout + early.stderr
        )
        assert not (tmp_path / "results" / name / "checkpoints").exists()
        check_calibration(tmp_path, config, name, stage)
        sharded = run(tmp_path, config, stage, "--cores", "2", "--set-resources", "train_stage:processes=2")
        assert sharded.returncode == 0, sharded.stdout[-3000:] + sharded.stderr[-6000:]
        assert json.loads((tmp_path / stage).read_text())["processes"] == 2
    whole = run(tmp_path, config, *targets, *(["bases"] if bases else []), "--cores", "2")
    assert whole.returncode == 0, whole.stdout[-3000:] + whole.stderr[-6000:]
    claims = json.loads((tmp_path / "results" / name / "claims.json").read_text())
    assert len(claims["claims"]) == 10
    for base in bases:
        check_base(tmp_path, name, base)
    again = run(tmp_path, config, *targets, "--dry-run")
    assert "Nothing to be done" in again.stdout, again.stdout[-3000:]


def check_calibration(root: Path, config: Path, name: str, stage: str) -> None:
    """The target prints every model's multiplier, and the next call's stages have the paper's λ times it."""
    called = run(root, config, "calibrate", "--cores", "2")
    assert called.returncode == 0, called.stdout[-3000:] + called.stderr[-6000:]
    for scale in ("7B", "13B", "1B"):
        found = json.loads((root / f"results/{name}/calibration/{scale}.json").read_text())["multiplier"]
        assert f"# λ of the model for {scale}: the paper's times {found:g}" in called.stdout
        if scale == "7B":
            planned = run(root, config, stage, "--dry-run", "--printshellcmds")
            assert f'"until":4,"shape":"constant","peak":{float(f"{5e-3 * found:.10g}")}' in planned.stdout


def check_base(root: Path, experiment: str, base: str) -> None:
    """The committed form holds the checkpoint's weights rounded to bfloat16, and says what they lose."""
    checkpoint, folder = root / f"results/{experiment}/checkpoints/{base}/seed0/stage0", root / "workflow/bases" / base
    trained, committed = (load_file(path / "model.safetensors") for path in (checkpoint, folder))
    assert trained.keys() == committed.keys()
    assert all(torch.equal(committed[name], weight.bfloat16()) for name, weight in trained.items())
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["steps"] == json.loads((checkpoint / "provenance.json").read_text())["steps"]
    measured = json.loads((root / f"results/{experiment}/measurements/{base}/seed0/sparsity.json").read_text())
    assert provenance["heldout"]["loss"] == pytest.approx(measured["measurements"][0]["loss"], abs=0.01)
    model = load(folder)
    rows = load_rows(root / f"results/{experiment}/data/tokens/bpe")
    for corpus, said in provenance["heldout"]["corpora"].items():
        with torch.no_grad():
            loss = model(input_ids=rows[corpus], labels=rows[corpus]).loss.item()
        assert said["loss"] == pytest.approx(loss, rel=1e-4)
    assert (folder / "ledger.csv").read_bytes() == (checkpoint / "ledger.csv").read_bytes()
    assert {"tokenizer.json", "tokenizer_config.json"} <= {path.name for path in folder.iterdir()}
