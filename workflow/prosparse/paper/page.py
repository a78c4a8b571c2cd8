"""``results/{experiment}/README.md``: claims, tables, figures and provenance on one page."""

from __future__ import annotations

from pathlib import Path

from prosparse.experiment.experiment import Experiment
from prosparse.paper.acceleration import page as acceleration
from prosparse.paper.claims import registry as claims
from prosparse.paper.figures import registry as figures
from prosparse.paper.results.needs import Needs
from prosparse.paper.results.reader import Results
from prosparse.paper.sections.compiled_operators import compiled_operators
from prosparse.paper.sections.corpora import corpora
from prosparse.paper.sections.host import host, provenance
from prosparse.paper.sections.not_run import not_run
from prosparse.paper.sections.origins import origins
from prosparse.paper.sections.overhead import overhead
from prosparse.paper.sections.times import start_up, times
from prosparse.paper.tables import registry as tables
from prosparse.system.files import write_text


def needs(experiment: Experiment) -> Needs:
    """Return everything that any table, figure or claim needs."""
    found = claims.needs(experiment)
    for table in tables.TABLES:
        found |= tables.needs(table, experiment)
    for figure in figures.FIGURES:
        found |= figures.needs(figure, experiment)
    return found


def write(experiment: Experiment, directory: str | Path) -> Path:
    """Write ``directory/README.md`` from the tables, figures and claims that exist there.

    Snakemake's benchmark TSVs are read from ``directory/timings``. Anything not made yet is marked as missing.
    """
    path = Path(directory) / "README.md"
    benchmarks = sorted((Path(directory) / "timings").rglob("*.tsv"))
    write_text(path, render(Results(directory, experiment), benchmarks))
    return path


def render(results: Results, benchmarks: list[Path]) -> str:
    experiment, directory = results.experiment, results.directory
    blocks, absent = provenance(results, needs(experiment))
    lines = [
        f"# {experiment.experiment}",
        "",
        experiment.description.strip(),
        "",
        "Every number below comes from a measurement of this experiment or from the paper's tables "
        "(Song et al., COLING 2025, arXiv 2402.13516v7). What was not measured is marked as missing.",
        "",
        "## Claims",
        "",
        _included(directory / "claims.md", "claims.md"),
        "",
        "## Tables",
    ]
    for name in tables.TABLES:
        lines += ["", _included(directory / "tables" / f"{name}.md", f"tables/{name}.md")]
    lines += ["", "## Figures"]
    for name in figures.FIGURES:
        exists = (directory / "figures" / f"{name}.png").exists()
        lines += [
            "",
            f"![{name}](figures/{name}.png)" if exists else f"_missing: figures/{name}.png has not been made yet._",
        ]
    lines += ["", "## Acceleration", "", _included(directory / acceleration.FILE, acceleration.FILE)]
    lines += ["", "## Stand-ins", "", *origins(experiment)]
    lines += ["", "## Corpora", "", *corpora(results)]
    lines += ["", "## Not run", "", *not_run(results, absent)]
    lines += [
        "",
        "## Host, versions and run time",
        "",
        *host(experiment, blocks),
        "",
        *times(blocks, benchmarks),
        "",
        *start_up(directory, benchmarks),
    ]
    lines += ["", "## Overhead of regularization and measurement", "", *overhead(results.speed_file)]
    lines += ["", "## Compiled GPU operators", ""]
    lines += compiled_operators(directory / "measurements" / "operators_compiled.json")
    return "\n".join(lines).rstrip() + "\n"


def _included(path: Path, name: str) -> str:
    """Return a fragment's text without the heading that would repeat the section's."""
    if not path.exists():
        return f"_missing: {name} has not been made yet._"
    return path.read_text(encoding="utf-8").strip().removeprefix("### Claims").strip()
