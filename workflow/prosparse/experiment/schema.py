"""JSON schema of config files, with which editors complete and check the YAML.

``python -m prosparse.experiment.schema > workflow/experiments/schema.json`` writes the committed copy.
"""

from __future__ import annotations

import json
from typing import Any

from prosparse.experiment.experiment import Experiment


def schema() -> dict[str, Any]:
    """Return the schema of ``Experiment``, extended by the shorthands that loading expands.

    A top-level ``training`` holds defaults, so a run's own may be partial or absent. A run may have ``scales``. An
    activation may be text. ``data.corpora`` may name files of ``packages``, ``corpora`` and ``mixtures``.
    """
    found = Experiment.model_json_schema()
    sections = found["$defs"]
    sections["Training"].pop("required")
    found["properties"]["training"] = {"$ref": "#/$defs/Training", "description": "Defaults of every run."}
    run = sections["Run"]
    run["required"].remove("training")
    run["properties"]["scales"] = {
        "type": "array",
        "items": {"type": "number", "exclusiveMinimum": 0},
        "minItems": 1,
        "uniqueItems": True,
        "description": "One run per number, NAME-x0.5 for 0.5, with every peak multiplied by it. A list of pairs that "
        "names NAME names all of them.",
    }
    text = {"type": "string", "examples": ["silu", "relu", "relu2", "drelu", "shiftrelu-0.1", "fatrelu-0.01"]}
    run["properties"]["activation"] |= {"anyOf": [text, {"$ref": "#/$defs/Activation"}]}
    run["properties"]["activation"].pop("$ref", None)
    data, corpora = sections["Data"], sections["Data"]["properties"]["corpora"]
    mapping = {key: corpora.pop(key) for key in list(corpora) if key not in ("title", "description")}
    files = {"type": "array", "items": {"type": "string"}, "description": "YAML files, later ones over earlier ones."}
    corpora["anyOf"] = [{"type": "string", "description": "A YAML file."}, files, mapping]
    data["required"].remove("mixtures")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1, ensure_ascii=False))
