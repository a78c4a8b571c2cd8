"""Bad configs are refused before any work, with the key and what it may hold."""

import copy

import pytest
import yaml
from helpers.repository import CONFIGS, ROOT, shipped

from prosparse.data import sources
from prosparse.experiment import lineage, specifications
from prosparse.experiment.data import PAPER_DATASETS, HubSource
from prosparse.experiment.experiment import Experiment
from prosparse.experiment.loading import load
from prosparse.experiment.training import Stage, Training
from prosparse.system.errors import ConfigError

CORPORA = ROOT / "workflow" / "experiments" / "package_corpora.yaml"
SHAPE = {"hidden_size": 128, "intermediate_size": 344, "layers": 4, "heads": 2, "kv_heads": 1}


@pytest.fixture
def laptop():
    """config.yaml, its corpora written out."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["data"] |= yaml.safe_load(CORPORA.read_text())
    return config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_shipped_experiment_is_valid(path):
    assert isinstance(load(shipped(path)), Experiment)


def test_true_shapes_adds_shapes_and_engines_and_changes_nothing_else(laptop):
    changed = load(shipped(ROOT / "workflow" / "experiments" / "true_shapes.yaml"))
    assert changed.decoding.shapes["llama-7b"].intermediate_size == 11008
    assert changed.decoding.engines.powerinfer.source.startswith("https://")
    before = load(laptop)
    assert before.decoding.shapes == {}
    assert not before.decoding.engines.llama_cpp
    same = {name: getattr(before.decoding, name) for name in ("shapes", "engines", "prompts", "new_tokens")}
    back = changed.decoding.model_copy(update=same)
    assert changed.model_copy(update={"decoding": back}) == before


def test_a_target_is_valid_after_peaks_and_lower_targets(laptop):
    stages = [{"until": 5, "peak": 0.1}, {"until": 6, "target_sparsity": 0.8}, {"until": 7, "target_sparsity": 0.9}]
    laptop["runs"]["small-constant-low"]["stages"] = stages
    run = load(laptop).runs["small-constant-low"]
    dumped = [stage.model_dump(mode="json") for stage in run.stages]
    # a stage without a target is recorded as it was before there were targets
    assert dumped[0] == {"until": 5, "shape": "constant", "peak": 0.1}
    assert dumped[1] == {"until": 6, "shape": "constant", "target_sparsity": 0.8}
    assert [Stage.model_validate(each) for each in dumped] == run.stages
    laptop["runs"]["small-final-1"]["stages"] = [{"until": 5, "target_sparsity": 0.9}]
    with pytest.raises(ConfigError, match=r"figures\.final_factor: small-final-1 ends with a target_sparsity"):
        load(laptop)


def test_an_expected_sparsity_changes_no_identity(laptop):
    """Two runs that share stages still do, and what a job is made from is what it was without a band."""
    plain = load(copy.deepcopy(laptop))
    laptop["runs"]["small-vanilla"]["stages"][0]["expected_sparsity"] = [0.6, 0.8]
    laptop["runs"]["small-constant-low"]["stages"][1]["expected_sparsity"] = [0.8, 0.9]
    banded = load(laptop)
    assert banded.runs["small-constant-low"].stages[1].expected_sparsity == (0.8, 0.9)
    for run, stage in (("small-vanilla", 0), ("small-vanilla", 1), ("small-constant-low", 1)):
        assert lineage.owner(banded, run, stage) == lineage.owner(plain, run, stage)
        assert specifications.stage(banded, run, stage, 0) == specifications.stage(plain, run, stage, 0)
    assert "expected_sparsity" not in plain.model_dump_json()


@pytest.mark.parametrize(
    ("band", "said"),
    [
        ([0.9, 0.8], r"stages\.1: expected_sparsity is \[0\.9, 0\.8\]: the first must be less than the second"),
        ([80, 90], r"stages\.1\.expected_sparsity\.0: Input should be less than or equal to 1"),
        ([0.8], r"stages\.1\.expected_sparsity\.1: "),
    ],
)
def test_a_band_without_room_is_refused(laptop, band, said):
    laptop["runs"]["small-constant-low"]["stages"][1]["expected_sparsity"] = band
    with pytest.raises(ConfigError, match=said):
        load(laptop)


def test_resolved_config_round_trips(laptop):
    experiment = load(laptop)
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment


@pytest.fixture
def named(laptop, tmp_path, monkeypatch):
    """The same, its corpora in a file below the current directory."""
    corpora = {key: laptop["data"].pop(key) for key in ("packages", "corpora", "mixtures")}
    (tmp_path / "corpora.yaml").write_text(yaml.safe_dump(corpora, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    laptop["data"]["corpora"] = "corpora.yaml"
    return laptop


def test_corpora_of_a_file_are_those_written_out(laptop, tmp_path, monkeypatch):
    written_out = load(laptop)
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert isinstance(config["data"]["corpora"], str)
    assert load(config) == written_out
    monkeypatch.chdir(tmp_path)  # where the file is not: taken from the repository
    assert load(config).data.corpora == written_out.data.corpora
    config["data"]["corpora"] = str(CORPORA)
    assert load(config).data.corpora == written_out.data.corpora


def test_own_packages_and_mixtures_are_laid_over_those_of_the_file(named):
    before = load(named).data
    package = {"version": "2.0", "sha256": "0" * 64}
    named["data"] |= {"packages": {"extra": package, "sympy": package}, "mixtures": {"mixed": {"django-docs": 1}}}
    after = load(named).data
    assert after.packages["extra"].version == after.packages["sympy"].version == "2.0"
    assert after.packages["django"] == before.packages["django"]
    assert after.mixtures == {"mixed": {"django-docs": 1}, "instructions": before.mixtures["instructions"]}
    assert after.corpora == before.corpora


def test_a_later_corpora_file_is_laid_over_an_earlier_one(named, tmp_path):
    before = load(named).data
    docs = {"stands_for": "pile", "kind": "language_modelling", "source": {"files": ["docs/*.txt"]}}
    later = {
        "corpora": {"django-docs": {**docs, "character_limit": 7}, "more-docs": docs},
        "mixtures": {"more": {"more-docs": 1}},
    }
    (tmp_path / "later.yaml").write_text(yaml.safe_dump(later, sort_keys=False))
    named["data"]["corpora"] = ["corpora.yaml", "later.yaml"]
    after = load(named).data
    assert list(after.corpora) == [*before.corpora, "more-docs"]
    assert after.corpora["django-docs"].character_limit == 7
    assert after.mixtures == {**before.mixtures, "more": {"more-docs": 1}}
    assert after.packages == before.packages
    named["data"]["corpora"] = ["corpora.yaml", {"later.yaml": 1}]
    with pytest.raises(ConfigError, match=r"data\.corpora: must name YAML files"):
        load(named)


def test_missing_corpora_file_names_the_key_and_where_it_was_sought(named, tmp_path):
    named["data"]["corpora"] = "nowhere.yaml"
    with pytest.raises(ConfigError, match=r"data\.corpora: no file nowhere\.yaml") as error:
        load(named)
    assert str(tmp_path) in str(error.value)
    assert str(ROOT) in str(error.value)


@pytest.mark.parametrize(
    "content",
    ["packages: {", "- a list", "", "corpora: [a]", "mixtures:", "context_length: {}", b"\xff\xfe\x00", "12: {}"],
)
def test_malformed_corpora_file_names_the_key_and_the_file(named, tmp_path, content):
    (tmp_path / "corpora.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=r"data\.corpora: .*corpora\.yaml"):
        load(named)


def test_bad_value_in_a_corpora_file_names_its_key_and_the_file(named, tmp_path):
    corpora = yaml.safe_load((tmp_path / "corpora.yaml").read_text())
    corpora["corpora"]["django-docs"]["stands_for"] = "books"
    (tmp_path / "corpora.yaml").write_text(yaml.safe_dump(corpora))
    with pytest.raises(ConfigError, match=r"corpora\.yaml\)\n.*data\.corpora\.django-docs\.stands_for.*'starcoder'"):
        load(named)


PRETRAINED = {"pretrained": "a-model"}


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        ({"vocabulary_size": 300, **PRETRAINED}, r"give exactly one of vocabulary_size, pretrained"),
        ({"gguf_file": "m.gguf"}, r"give exactly one of vocabulary_size, pretrained"),
        ({"vocabulary_size": 300, "gguf_file": "m.gguf"}, r"gguf_file, special_tokens: only with pretrained"),
        ({"vocabulary_size": 300, "revision": "v2"}, r"revision, gguf_file, special_tokens: only with pretrained"),
        ({"vocabulary_size": 300, "special_tokens": {"bos_token": "<s>"}}, r"special_tokens: only with pretrained"),
        ({**PRETRAINED, "special_tokens": {"unk_token": "a"}}, r"unk_token.*'bos_token', 'eos_token' or 'pad_token'"),
    ],
)
def test_bad_tokenizers(laptop, tokenizer, message):
    with pytest.raises(ConfigError, match=message) as error:
        load(change(laptop, ["data", "tokenizers", "bpe"], tokenizer))
    assert "data.tokenizers.bpe" in str(error.value)


def test_a_search_needs_rows_of_its_own(laptop):
    laptop["runs"]["trial"] = laptop["runs"]["small-vanilla"]
    laptop["search"] = ["trial"]
    assert load(laptop).search == ["trial"]
    del laptop["data"]["tuning_sequences"]
    with pytest.raises(ConfigError, match=r"data\.tuning_sequences: search needs at least 1"):
        load(laptop)


def test_tokenizer_of_a_gguf_file(laptop):
    wanted = {**PRETRAINED, "gguf_file": "m.gguf", "special_tokens": {"bos_token": "<s>"}}
    tokenizer = load(change(laptop, ["data", "tokenizers", "bpe"], wanted)).data.tokenizers["bpe"]
    assert tokenizer.model_dump(exclude_none=True) == wanted


@pytest.fixture
def two_tokenizers(laptop):
    """The default, where the runs of the stand-in for MiniCPM-1B have a tokenizer of their own."""
    laptop["data"]["tokenizers"]["own"] = {"vocabulary_size": 1024}
    for name, run in laptop["runs"].items():
        run["tokenizer"] = "own" if name.startswith("minicpm") else "bpe"
    return laptop


def test_runs_name_their_tokenizer(laptop, two_tokenizers):
    experiment = load(two_tokenizers)
    assert {experiment.tokenizer("minicpm-sft"), experiment.tokenizer("small-base")} == {"own", "bpe"}
    two_tokenizers["data"]["tokenizers"].pop("own")
    sections = {"rows": {}, "stages": {}, "figures": {}, "vanilla": {}, "supervised_finetuning": None}
    one = {**two_tokenizers, "runs": {"small-base": laptop["runs"]["small-base"]}, **sections}
    assert load(one).tokenizer("small-base") == "bpe"


@pytest.mark.parametrize(
    ("run", "changed", "message"),
    [
        ("small-base", {"tokenizer": None}, r"runs\.small-base\.tokenizer: name one of bpe, own"),
        (
            "small-base",
            {"tokenizer": "bp"},
            r"runs\.small-base\.tokenizer: unknown name 'bp' \(did you mean bpe\?\); allowed: bpe, own",
        ),
        ("minicpm-sft", {"tokenizer": "bpe"}, r"minicpm-sft\.tokenizer is bpe: that of init\.run minicpm-decay is own"),
        (
            "small-vanilla",
            {"distillation": {"teacher": "minicpm-base", "share": 0.5}},
            r"small-vanilla\.tokenizer is bpe: that of distillation\.teacher minicpm-base is own",
        ),
    ],
)
def test_runs_without_a_tokenizer_or_with_anothers(two_tokenizers, run, changed, message):
    two_tokenizers["runs"][run] |= changed
    with pytest.raises(ConfigError, match=message):
        load(two_tokenizers)


def test_run_training_overrides_the_defaults(laptop):
    experiment = load(laptop)
    assert experiment.runs["minicpm-sft"].training.learning_rate == 3e-4
    assert experiment.runs["minicpm-sft"].training.batch_size == laptop["training"]["batch_size"]


def change(config, path, value):
    config = copy.deepcopy(config)
    *parents, last = path
    target = config
    for key in parents:
        target = target[key]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["lamda"], 1, r"lamda: unknown key; allowed here: experiment, description, seeds"),
        (
            ["runs", "small-vanilla", "stages", 0, "peek"],
            1,
            r"peek: unknown key \(did you mean peak\?\); allowed here: until, shape, peak",
        ),
        (
            ["training", "lr"],
            1,
            r"runs\.small-base\.training\.lr: unknown key; allowed here: learning_rate",
        ),
        (
            ["data", "tokenizers", "bpe", "size"],
            1,
            r"data\.tokenizers\.bpe\.size: unknown key; allowed here: vocabulary_size",
        ),
        (["training", "schedule"], "cosin", r"training\.schedule: .*'cosine', 'linear', 'constant' or 'wsd'"),
        (["training", "schedule"], "wsd", r"decay_share: required with schedule wsd, not allowed with cosine"),
        (["training", "decay_share"], 0.2, r"decay_share: required with schedule wsd, not allowed with cosine"),
        (
            ["runs", "small-prosparse", "training"],
            {"schedule": "wsd", "decay_share": 0.95},
            r"decay_share is 0\.95: its 456 steps and the 40 of the warm-up are more than the run's 480",
        ),
        (["training", "micro_batch_size"], 3, r"batch_size must be a multiple of micro_batch_size"),
        (["runs", "small-prosparse", "stages", 1, "until"], 5, r"stages\.1\.until is 5: must be greater than"),
        (["runs", "small-prosparse", "stages", 3, "peak"], 0.01, r"stages\.3\.peak is 0\.01: peaks must not fall"),
        (["runs", "small-prosparse", "stages", 2, "peak"], -1, r"stages\.2\.peak: .*greater than or equal to 0"),
        (
            ["runs", "small-prosparse", "stages", 2, "shape"],
            "lineer",
            r"stages\.2\.shape: .*'constant', 'sine' or 'linear' .*\(did you mean linear\?\)",
        ),
        (["runs", "small-vanilla", "activation"], "fatrelu--0.1", r"activation.*at least 0"),
        (
            ["runs", "small-vanilla", "activation"],
            "gelu",
            "allowed are silu, relu, relu2, drelu, fatrelu-THRESHOLD",
        ),
        (
            ["runs", "small-vanilla", "init"],
            {"run": "nobody"},
            r"init\.run: unknown name 'nobody'; allowed: small-base",
        ),
        (["runs", "small-base", "init"], {"run": "small-vanilla"}, r"a cycle, "),
        (["runs", "small-final-1", "init", "stage"], 9, r"init\.stage is 9: small-prosparse has stages 0 to 5"),
        (
            ["runs", "small-vanilla", "mixture"],
            "mixd",
            r"mixture: unknown name 'mixd' \(did you mean mixed\?\); allowed: mixed, instructions",
        ),
        (["rows", "LLaMA2-7B"], "small-base@fatrelu--1", r"at least 0"),
        (
            ["rows", "LLaMA3-8B"],
            "small-base",
            r"rows: unknown name 'LLaMA3-8B' \(did you mean LLaMA2-7B\?\); allowed: LLaMA2-7B, ReluLLaMA-7B",
        ),
        (
            ["rows", "ProSparse-7B"],
            "small",
            r"rows\.ProSparse-7B: unknown name 'small' \(did you mean small-base\?\); allowed: small-base",
        ),
        (["data", "mixtures", "mixed", "books"], 1, r"mixtures\.mixed: unknown name 'books'"),
        (["data", "corpora", "django-docs", "stands_for"], "books", r"stands_for.*'starcoder', 'wikipedia'"),
        (["data", "packages", "sympy", "sha256"], "abc", r"packages\.sympy\.sha256"),
        (["architectures"], {"own": {**SHAPE, "heads": 3}}, r"hidden_size must be a multiple of heads"),
        (["architectures"], {"own": {**SHAPE, "type": "minicpm"}}, r"all for type minicpm, none for llama"),
        (["seeds"], [], r"seeds: .*at least 1 item"),
        (["seeds"], [0, -1], r"seeds\.1: .*greater than or equal to 0"),
        (["seeds"], [2**32], r"seeds\.0: .*less than 4294967296"),
        (["seeds"], [0, 1, 0], r"seeds: each seed may appear once; repeated: 0"),
        (["vanilla"], {"13B": "nobody"}, r"vanilla\.13B: unknown name 'nobody'"),
        (["benchmarks", "rows"], "internet", r"benchmarks\.rows: .*'packages', 'hub' or 'files'"),
        (
            ["benchmarks", "limits"],
            {"arc": 3},
            r"benchmarks: limits: unknown name 'arc'; allowed: humaneval",
        ),
        (["benchmarks", "limits"], {"piqa": 0}, r"benchmarks\.limits\.piqa: .*greater than 0"),
        (["precision"], "float16", r"precision: .*'float32' or 'bfloat16'"),
        (
            ["ours"],
            {"Dense": "nobody@relu"},
            r"ours\.Dense: unknown name 'nobody'; allowed: small-base",
        ),
        (["ours"], {"Dense": "small-base@gelu"}, "allowed are silu, relu, relu2, drelu, fatrelu-THRESHOLD"),
        (
            ["search"],
            ["small-base", "nobody"],
            r"search: unknown name 'nobody'; allowed: small-base",
        ),
        (["ours"], {"Dense": "small-base@gelu"}, r"ours\.Dense: activation 'gelu'"),
        (
            ["search"],
            ["small-vanilla@fatrelu-0.1"],
            r"rows: small-vanilla is in search, whose runs are measured on tun",
        ),
        (["data", "tuning_sequences"], -1, r"data\.tuning_sequences: .*greater than or equal to 0"),
        (
            ["figures", "frontier"],
            {"small": {"original": "small-base", "methods": {"Vanilla ReLU": ["small-vanila"]}}},
            r"figures\.frontier\.small\.methods\.Vanilla ReLU: unknown name 'small-vanila'.*small-vanilla",
        ),
        (
            ["figures", "frontier"],
            {"small": {"original": "nobody", "methods": {"Vanilla ReLU": ["small-vanilla"]}}},
            r"figures\.frontier\.small\.original: unknown name 'nobody'",
        ),
        (
            ["figures", "frontier"],
            {"small": {"original": "small-base", "methods": {"Vanilla ReLU": ["small-vanilla@gelu"]}}},
            r"figures\.frontier\.small\.methods\.Vanilla ReLU: activation 'gelu'",
        ),
        (
            ["figures", "frontier"],
            {"small": {"original": "small-base", "methods": {"Vanilla ReLU": []}}},
            r"figures\.frontier\.small\.methods\.Vanilla ReLU: .*at least 1 item",
        ),
        (
            ["figures", "frontier"],
            {"small": {"original": "small-base", "methods": {}}},
            r"figures\.frontier\.small\.methods: .*at least 1 item",
        ),
        (
            ["figures", "frontier"],
            {"small": {"original": "small-base", "methods": {"CATS": ["small-base@cats-0.5"]}}},
            r"figures\.frontier\.small\.methods\.CATS: activation 'cats-0\.5': thresholds without training",
        ),
        (
            ["figures", "frontier"],
            {"small": {"original": "small-base", "methods": {"A": ["small-vanilla"]}, "training_free": [0.5, 50]}},
            r"figures\.frontier\.small\.training_free\.1: .*less than 1",
        ),
        (["figures", "frontier"], {"small": {"methods": {}}}, r"figures\.frontier\.small\.original: "),
        (["figures", "schedule"], ["nobody"], r"figures\.schedule: unknown name 'nobody'"),
        (["predictors", "kinds"], ["nonzero", "mlp"], r"predictors\.kinds\.1: .*'nonzero', 'top' or 'svd'"),
        (["predictors", "kinds"], [], r"predictors\.kinds: .*at least 1 item"),
        (["predictors", "rank"], 0, r"predictors\.rank: .*greater than 0"),
        (["predictors", "rank"], ..., r"predictors\.rank: "),
        (["predictors", "top"], 1.5, r"predictors\.top: .*less than or equal to 1"),
        (["predictors", "decision_threshold"], 1, r"predictors\.decision_threshold: .*less than 1"),
        (["predictors", "decision_threshold"], 0, r"predictors\.decision_threshold: .*greater than 0"),
        (
            ["predictors", "epoch"],
            3,
            r"predictors\.epoch: unknown key \(did you mean epochs\?\); allowed here: kinds, rank, tokens, epochs",
        ),
        (
            ["decoding", "precisions"],
            ["bfloat16", "int8"],
            r"decoding\.precisions.*'bfloat16', 'float16', 'float32', 'q8_0' or 'q4_0'",
        ),
        (["decoding", "precisions"], [], r"decoding\.precisions: .*at least 1 item"),
        (["decoding", "precisions"], ["q4_0", "q4_0"], r"decoding\.precisions: .*q4_0 is there more than once"),
        (["decoding", "prompts"], 0, r"decoding\.prompts: .*greater than 0"),
        (["decoding", "new_tokens"], 15, r"decoding\.new_tokens: .*a multiple of 16"),
        (
            ["decoding", "shape"],
            {},
            r"decoding\.shape: unknown key \(did you mean shapes\?\); allowed here: precisions, prompts, new_tokens",
        ),
        (
            ["decoding", "engines"],
            {"vllm": True},
            r"decoding\.engines\.vllm: unknown key; allowed here: llama_cpp",
        ),
        (["decoding", "engines"], {"powerinfer": {}}, r"decoding\.engines\.powerinfer\.source: "),
    ],
)
def test_bad_values_name_the_key_and_the_allowed(laptop, path, value, message):
    with pytest.raises(ConfigError, match=message):
        load(change(laptop, path, value))


SHAPE = {
    "hidden_size": 64, "intermediate_size": 160, "layers": 2, "heads": 4, "kv_heads": 2, "vocabulary_size": 300,
    "rows": ["ProSparse-7B"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"rows": ["ProSparse-7B", "ProSparse-70B"]},
            r"rows: unknown name 'ProSparse-70B' \(did you mean ProSparse-7B\?\); allowed: .*ProSparse-13B",
        ),
        ({"rows": ["LLaMA2-7B"]}, r"rows: unknown name 'LLaMA2-7B'"),  # has no sparsity
        ({"rows": []}, r"\.rows: .*at least 1 item"),
        ({"heads": 5}, r"hidden_size must be a multiple of heads"),
        ({"kv_heads": 3}, r"heads must be a multiple of kv_heads"),
        ({"rank": 0}, r"\.rank: .*greater than 0"),
        ({"vocabulary_size": 0}, r"\.vocabulary_size: .*greater than 0"),
        ({"type": "minicpm"}, r"all for type minicpm, none for llama"),
        (
            {"vocabulary": 9},
            r"\.vocabulary: unknown key \(did you mean vocabulary_size\?\); allowed here: type, hidden_size",
        ),
    ],
)
def test_bad_shapes_name_the_key_and_the_allowed(laptop, changed, message):
    laptop["decoding"]["shapes"] = {"small": SHAPE}
    assert load(laptop).decoding.shapes["small"].rank == 1024
    laptop["decoding"]["shapes"] = {"small": {**SHAPE, **changed}}
    with pytest.raises(ConfigError, match=message) as error:
        load(laptop)
    assert "decoding.shapes.small" in str(error.value)


def test_a_shape_has_the_precisions_of_all_or_its_own(laptop):
    laptop["decoding"] |= {"precisions": ["bfloat16", "q8_0"], "shapes": {"all": SHAPE}}
    laptop["decoding"]["shapes"]["own"] = {**SHAPE, "precisions": ["q4_0"]}
    decoding = load(laptop).decoding
    assert (decoding.of_shape("all"), decoding.of_shape("own")) == (["bfloat16", "q8_0"], ["q4_0"])


@pytest.mark.parametrize("size", ["hidden_size", "intermediate_size"])
def test_a_shape_without_whole_blocks_is_refused_in_the_formats_that_need_them(laptop, size):
    odd = {**SHAPE, size: 176}
    laptop["decoding"]["shapes"] = {"odd": odd}
    assert load(laptop)
    laptop["decoding"]["shapes"] = {"odd": {**odd, "precisions": ["float16", "q4_0"]}}
    message = rf"decoding: .*shapes\.odd\.{size}: 176 is not a multiple of 32, which q4_0 needs"
    with pytest.raises(ConfigError, match=message):
        load(laptop)


def test_the_papers_corpora_are_its_nine_data_sets():
    """Every one from the hub, checked as before a run; gated where it is, and in a mixture."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["data"]["corpora"] = "workflow/experiments/paper_corpora.yaml"
    data = load(config).data
    assert {corpus.stands_for for corpus in data.corpora.values()} == set(PAPER_DATASETS)
    assert set(data.mixtures["mixed"]) == set(data.corpora)
    instructions = {name for name, corpus in data.corpora.items() if corpus.kind == "instruction"}
    assert set(data.mixtures["instructions"]) == instructions
    for name, corpus in data.corpora.items():
        assert isinstance(corpus.source, HubSource)
        assert corpus.source.revision
        sources.check(name, corpus)
    assert [name for name, corpus in data.corpora.items() if corpus.source.gated] == ["starcoder"]


def test_a_batch_is_divided_among_the_processes_or_refused():
    training = Training(learning_rate=1e-3, batch_size=24, micro_batch_size=2)
    assert [training.accumulation_steps(processes) for processes in (1, 4, 12)] == [12, 3, 1]
    with pytest.raises(ConfigError, match="batch_size 24 is not a multiple of micro_batch_size 2 x 16 processes"):
        training.accumulation_steps(16)


def test_a_deviation_over_seeds_may_stay_in_a_config_of_several(laptop):
    laptop["seed_deviation"] = {"loss": 0.003, "sparsity": 0.2}
    assert load({**laptop, "seeds": [0, 1, 2]}).seeds == [0, 1, 2]
