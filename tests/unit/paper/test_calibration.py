"""The multiplier of simulated models, whose curve over λ and time is known."""

from __future__ import annotations

import json
import math

import pytest

from prosparse.__main__ import main
from prosparse.experiment.calibrated import CalibrationSpecification
from prosparse.experiment.training import Training
from prosparse.paper import calibration
from prosparse.paper.calibration import Unusable
from prosparse.published.factors import reference

FULL, STEPS = 3000.0, 600
TRAINING = Training(
    learning_rate=1e-3, schedule="constant", warmup_steps=60, batch_size=1, micro_batch_size=1, log_every=10
)


def specification(scale, probes):
    return CalibrationSpecification(scale=scale, probes=probes, steps=STEPS, training=TRAINING, full_time=FULL)


def simulated(folder, specification, times):
    """Ledgers of a model that reaches after a full run what the paper's does with its λ divided by ``times``.

    On the way, its density falls as the fifth root of the learning rate's sum.
    """
    paper, ledgers = reference(specification.scale), []
    for factor in specification.probes:
        final, lines, time = 100 - paper.sparsity(factor / times), ["step,lambda,sparsity"], 0.0
        for step in range(1, STEPS + 1):
            time += min(1.0, (step - 1) / 60)
            if step == 1 or step % 10 == 0:
                density = final * (max(time, 1e-3) / FULL) ** -0.2
                lines.append(f"{step},{factor},{1 - min(density, 99) / 100!r}")
        ledgers.append(folder / f"{factor:g}.csv")
        ledgers[-1].write_text("\r\n".join(lines) + "\r\n")
    return ledgers


@pytest.mark.parametrize(("scale", "times", "probes"), [("7B", 15.0, [0.5, 2, 8]), ("13B", 60.0, [0.5, 2, 8]),
                                                        ("1B", 0.4, [0.01, 0.04])])  # fmt: skip
def test_the_multiplier_of_a_known_model_is_found(tmp_path, scale, times, probes):
    wanted, output = specification(scale, probes), tmp_path / f"{scale}.json"
    assert calibration.write(wanted, simulated(tmp_path, wanted, times), output) == pytest.approx(times, rel=5e-3)
    record = json.loads(output.read_text())
    assert record["multiplier"] == float(f"{times:.3g}")
    assert record["ratios"] == pytest.approx([times, times], rel=1e-6)  # one number for all of the curve
    for probe, factor in zip(record["probes"], probes, strict=True):
        final = reference(scale).sparsity(factor / times)
        assert probe["sparsity_of_a_full_run"] == pytest.approx(final)
        assert probe["sparsity_at_its_end"] < final
    page = output.with_suffix(".md").read_text()
    assert f"# λ of the model for {scale}: the paper's times {times:g}" in page
    assert "| 2 |" in page or scale == "1B"


def test_a_model_with_another_curve_is_matched_at_the_last_lambda(tmp_path):
    """Over λ, its density falls twice as fast as the paper's: the ratios differ, and say so."""
    wanted, paper = specification("7B", [1.0, 2.0, 4.0]), reference("7B")
    level, ledgers = 100 - paper.sparsity(paper.factor), []
    for factor in wanted.probes:
        density = level * math.exp(-2 * 1.76 * 0.6 * (factor**0.3 - 2.5**0.3))
        ledgers.append(tmp_path / f"{factor:g}.csv")
        rows = [f"{step},{factor},{1 - density / 100!r}" for step in range(10, STEPS + 1, 10)]
        ledgers[-1].write_text("\r\n".join(["step,lambda,sparsity", *rows]) + "\r\n")
    # settled from the start, it reaches the paper's sparsity at λ = 2.5, of the paper's 0.2
    assert calibration.write(wanted, ledgers, tmp_path / "7B.json") == pytest.approx(2.5 / 0.2, rel=5e-3)
    low, high = json.loads((tmp_path / "7B.json").read_text())["ratios"]
    assert low < 12.5 < high


@pytest.mark.parametrize(("times", "advice"), [(500.0, "a larger λ"), (0.5, "a smaller λ")])
def test_probes_on_one_side_are_refused_with_what_they_reach(tmp_path, times, advice):
    wanted, output = specification("7B", [0.5, 2, 8]), tmp_path / "7B.json"
    with pytest.raises(Unusable, match=f"reaches 89.44% at λ = 0.2; .* at λ = 8: add {advice} to calibration.7B"):
        calibration.write(wanted, simulated(tmp_path, wanted, times), output)
    assert not output.exists()


def test_the_step_prints_the_multiplier(tmp_path, capsys):
    wanted, output = specification("7B", [0.5, 2, 8]), tmp_path / "7B.json"
    ledgers = simulated(tmp_path, wanted, 15.0)
    words = ["step", "calibrate", *map(str, ledgers), "--specification", wanted.model_dump_json()]
    assert main([*words, "--output", str(output)]) == 0
    assert capsys.readouterr().out == "multiplier: 15\n"
    ledgers[0].write_text("step,lambda,sparsity\r\n600,0.5,0.8\r\n")
    assert main([*words, "--output", str(output)]) != 0
    assert "0.5.csv: the probe at λ = 0.5: 1 measurements after its first quarter" in capsys.readouterr().err
