"""`stepdpo export`: what it writes opens elsewhere and says the same, and what it refuses leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from support import exports, tiny
from support.commands import stepdpo
from typer.testing import CliRunner

from stepdpo.cli import export as exporting
from stepdpo.cli.main import app
from stepdpo.data.templates import MixedTemplate, NativeTemplate, TextTemplate
from stepdpo.models.lora import Lora

IDS = torch.tensor([[5, 90, 300, 17, 44, 2, 130, 9]])
SECRET = "zq7-planted-0123456789"
HUB = "hub-secret-0123456789"


def run_export(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["export", *map(str, words)])
    return done.exit_code, done.output


def exported(*words: str | Path) -> str:
    code, said = run_export(*words)
    assert code == 0, said
    return said


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(IDS).logits


def opened(folder: Path, **more: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **more)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, Any]:
    """All of a model, with a value head and an evaluation; a key is in its configuration."""
    root = tmp_path_factory.mktemp("runs") / "whole"
    made = exports.finished_run(root, tiny_model, values=True, judge={"api_key": SECRET, "note": HUB})
    exports.evaluated(root, "gsm8k", right=3, wrong=1)
    return made


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, Any]:
    pytest.importorskip("peft")
    return exports.finished_run(tmp_path_factory.mktemp("runs") / "lora", tiny_model, Lora(rank=4))


def test_transformers_opens_it_and_says_the_same(trained: tuple[Path, Any], tmp_path: Path) -> None:
    run, model = trained
    out = tmp_path / "out"
    said = exported(run, f"out={out}", "shard=60KB")
    assert "in float32" in said
    shards = sorted(path.name for path in out.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert all(re.fullmatch(rf"model-\d{{5}}-of-{len(shards):05d}\.safetensors", name) for name in shards)
    torch.testing.assert_close(logits(opened(out)), logits(model), rtol=0, atol=0)
    # The head goes along to the byte, and is no part of what loaders take for the model.
    assert (out / "value_head.safetensors").read_bytes() == (run / "model" / "value_head.safetensors").read_bytes()
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(shards)
    assert not list(tmp_path.glob(".*"))


def test_in_another_number_format_it_is_the_rounded_model(trained: tuple[Path, Any], tmp_path: Path) -> None:
    run, _ = trained
    out = tmp_path / "half"
    exported(run, "--out", out, "--dtype", "bfloat16")
    other = opened(out, dtype="auto")
    assert other.dtype == torch.bfloat16
    rounded = opened(run / "model", dtype=torch.bfloat16)
    torch.testing.assert_close(logits(other), logits(rounded), rtol=0, atol=0)
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert load_file(out / "value_head.safetensors")["weight"].dtype == torch.float32
    # One file of weights, and still an index: without it, other loaders would read the value head too.
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {"model.safetensors"}
    assert index["weight_map"].keys() == load_file(out / "model.safetensors").keys()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's
def test_peft_opens_the_adapter_alone_and_the_merged_model_says_the_same(
    adapted: tuple[Path, Any], tiny_model: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoTokenizer

    run, model = adapted
    alone, merged = tmp_path / "alone", tmp_path / "merged"
    said = exported(run, f"out={alone}", "merge=false", "--gguf")
    assert f"python convert_lora_to_gguf.py {alone} --base {tiny_model} --outfile {alone}.gguf" in said
    said = exported(run, f"out={merged}", "--gguf", "dtype=float16")
    assert f"python convert_hf_to_gguf.py {merged} --outfile {merged}.gguf --outtype f16" in said
    beside: Any = PeftModel.from_pretrained(opened(tiny_model), alone)
    torch.testing.assert_close(logits(beside), logits(model), rtol=1e-5, atol=1e-5)
    assert not (alone / "config.json").exists()
    assert len(AutoTokenizer.from_pretrained(alone)) == len(tiny.tokenizer())
    # The base is another function: the adapter was not lost.
    assert (logits(opened(tiny_model)) - logits(model)).abs().max() > 0.01
    torch.testing.assert_close(logits(opened(merged).float()), logits(model), rtol=0.02, atol=0.02)
    assert ModelCard.load(alone / "README.md").data.library_name == "peft"


def test_the_card_says_what_it_was_trained_on_how_and_what_came_of_it(
    trained: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", HUB)
    run, _ = trained
    config = (run / "config.yaml").read_text()
    assert SECRET in config
    assert HUB in config
    out = tmp_path / "carded"
    exported(run, f"out={out}", "license=apache-2.0")
    found = ModelCard.load(out / "README.md")
    assert (found.data.license, found.data.library_name) == ("apache-2.0", "transformers")
    assert found.data.tags[0] == "stepdpo"
    assert found.data.datasets == ["some-owner/some-data"]
    assert found.data.base_model is None  # a folder of this machine is nothing that the hub knows
    strict = next(result for result in found.data.eval_results if result.metric_args["grader"] == "strict")
    assert (strict.dataset_name, strict.metric_value, strict.metric_args["n"]) == ("gsm8k", 0.75, 4)
    # Wilson's interval of 3 in 4, written out: (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n).
    z, p, n = 1.959963984540054, 0.75, 4
    middle, width = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    low, high = ((middle + sign * width) / (1 + z * z / n) for sign in (-1, 1))
    assert strict.metric_args["ci_low"] == pytest.approx(low)
    assert strict.metric_args["ci_high"] == pytest.approx(high)
    for words in ("| rows | 28 |", "| bad | 1 |", "| pairs trained on | 24 |", "f" * 64, "beta: 0.4", "torch 2.0"):
        assert words in found.content, words
    assert f"| gsm8k | greedy | strict | 75.0% | {low:.1%} to {high:.1%} | 4 |" in found.content
    for path in out.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
            assert HUB.encode() not in path.read_bytes(), path


def test_what_is_not_known_is_not_made_up(adapted: tuple[Path, Any], tmp_path: Path) -> None:
    run = Path(shutil.copytree(adapted[0], tmp_path / "older"))
    (run / "data.json").unlink()
    said = exported(run, "base=some-owner/some-base")
    assert "license=apache-2.0" in said
    found = ModelCard.load(run / "export" / "README.md")
    assert found.data.license is None
    assert found.data.base_model == "some-owner/some-base"
    assert "It was not evaluated." in found.content
    assert "How many rows there were is not known" in found.content


def test_its_chat_template_is_the_one_it_was_trained_with(trained: tuple[Path, Any], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    out = tmp_path / "asked"
    assert "Its chat template is template=alpaca" in exported(trained[0], f"out={out}")
    tokenizer: Any = AutoTokenizer.from_pretrained(out)
    turns = [("user", "2 + {3}?"), ("assistant", "5"), ("user", "Sure?")]
    text = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns], tokenize=False, add_generation_prompt=True
    )
    # Its joint forms a token with the colon before it, and is therefore given with the prompt.
    block = "### Instruction:\n{}\n\n### Response:"
    assert text == block.format("2 + {3}?") + "\n5\n\n" + block.format("Sure?") + "\n"
    assert "chat_template" not in json.loads((out / "tokenizer_config.json").read_text())


@pytest.mark.parametrize(
    ("template", "turns", "text"),
    [
        (
            TextTemplate(name="odd", prompt='"{question}" }} {% \\n\n{question} ü:', joint=" "),
            [("user", "Q\n")],
            '"Q\n" }} {% \\n\nQ\n ü:',
        ),
        (
            NativeTemplate(system="Be 'brief'."),
            [("user", "Q")],
            "<|im_start|>system\nBe 'brief'.<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            NativeTemplate(system="Be brief."),
            [("system", "Be long."), ("user", "Q")],
            "<|im_start|>system\nBe long.<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n",
        ),
    ],
)
def test_templates_of_all_kinds_are_said(
    trained: tuple[Path, Any], template: Any, turns: list[tuple[str, str]], text: str, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    from stepdpo.data.template_card import card_entry, resolve
    from stepdpo.models.save import write_card

    run = Path(shutil.copytree(trained[0], tmp_path / "run"))
    write_card(run / "model", card_entry(template, tiny.tokenizer()))
    assert "which it was trained with" in exported(run)
    tokenizer: Any = AutoTokenizer.from_pretrained(run / "export")
    messages = [{"role": role, "content": content} for role, content in turns]
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == text
    # An evaluation of the exported folder asks as that of the run does, and sees nothing odd in it.
    again, warning = resolve(NativeTemplate(), run / "export", tokenizer)
    assert (again, warning) == (template, None)


def test_a_template_that_cannot_be_said_is_told(trained: tuple[Path, Any], tmp_path: Path) -> None:
    from stepdpo.data.template_card import card_entry
    from stepdpo.models.save import write_card

    run = Path(shutil.copytree(trained[0], tmp_path / "run"))
    mixed = MixedTemplate("mixed", [tiny.ALPACA, tiny.DEEPSEEK])
    write_card(run / "model", card_entry(mixed, tiny.tokenizer()))
    before = (run / "model" / "chat_template.jinja").read_bytes()
    assert "template=mixed, which no chat template says" in exported(run)
    assert (run / "export" / "chat_template.jinja").read_bytes() == before
    assert "template=mixed, which no chat template says" in (run / "export" / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dtpye=float16"], "dtpye: there is no such setting; did you mean 'dtype'?"),
        (["dtype=bf16"], "dtype=bf16: there is no such number format here; did you mean 'bfloat16'?"),
        (["shard=5 apples"], "shard: expected a size such as 5GB or 500MB, got '5 apples'"),
        (["merge=maybe"], "merge: expected true or false, got 'maybe'"),
        (["push=me"], "push: expected owner/name, got 'me'"),
        (["merge=false"], "merge=false: this run trained no adapter"),
        (["license=My Own"], "license: expected one of the hub's words"),
        (["push=me/mine"], "push: HF_TOKEN is not set"),
        (["out=."], "is the run itself, or holds it"),
        (["out=model/x"], "is the run itself, or holds it"),
        (["out=a", "--out", "b"], "out: given twice"),
        (["out=config.yaml"], "is a file or a link"),
        (["out=eval"], "already exists: force=true replaces it"),
        (["out=eval", "force=true"], "is no export of stepdpo, so force=true leaves it alone"),
    ],
)
def test_what_is_refused(
    trained: tuple[Path, Any], words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(trained[0], tmp_path / "run"))
    monkeypatch.chdir(run)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    before = sorted(run.rglob("*"))
    code, output = run_export(run, *words)
    assert code == 2
    assert said in output
    assert "Traceback" not in output
    assert sorted(run.rglob("*")) == before


def test_an_unfinished_run_and_what_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "stopped" / "checkpoints").mkdir(parents=True)
    (tmp_path / "runs" / "stopped" / "config.yaml").write_text("{}\n")
    code, output = run_export("stoped")
    assert (code, "stoped: no such run; did you mean 'stopped'?" in output) == (2, True)
    code, output = run_export("stopped")
    assert (code, "its training has not finished (no model/): resume=true goes on with it" in output) == (2, True)
    code, output = run_export(tmp_path / "runs")
    assert (code, "not the folder of a run" in output) == (2, True)


def test_an_adapter_alone_needs_its_base(adapted: tuple[Path, Any], tiny_model: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(tiny_model, tmp_path / "moved"))
    run = Path(shutil.copytree(adapted[0], tmp_path / "run"))
    config = run / "config.yaml"
    config.write_text(config.read_text().replace(str(tiny_model), "/nowhere/base"))
    code, output = run_export(run, "merge=false")
    assert (code, "its base /nowhere/base is not there; base=FOLDER or base=owner/name" in output) == (2, True)
    exported(run, "merge=false", f"base={moved}")
    found = json.loads((run / "export" / "adapter_config.json").read_text())
    assert found["base_model_name_or_path"] == str(moved)
    exported(run, "force=true")  # merged, it needs none
    # Trained beside a base in 4 bits: the very weights count.
    (run / "model" / "adapter" / "base.json").write_text(json.dumps({"weights": "0" * 64}))
    code, output = run_export(run, "merge=false", f"base={moved}", "force=true")
    assert (code, "holds other weights than those that the adapter was trained beside" in output) == (2, True)


def test_a_number_that_the_format_has_not(trained: tuple[Path, Any], tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained[0], tmp_path / "run"))
    file = run / "model" / "model.safetensors"
    weights = load_file(file)
    name = "model.norm.weight"
    weights[name] = weights[name].clone()
    weights[name][0] = 70000.0
    save_file(weights, file, metadata={"format": "pt"})
    code, output = run_export(run, "dtype=float16")
    assert (code, f"dtype: {name} holds 70000, which float16 has no number for" in output) == (2, True)
    assert not (run / "export").exists()
    exported(run, "dtype=bfloat16")


def test_stopped_in_the_midst_it_leaves_nothing_or_what_was_there(
    trained: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def stop(*_: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "model_card", stop)
        assert run_export(trained[0], f"out={out}")[0] != 0
        assert not list(tmp_path.iterdir())
    exported(trained[0], f"out={out}")
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "model_card", stop)
        assert run_export(trained[0], f"out={out}", "force=true")[0] != 0
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    exported(trained[0], f"out={out}", "--force", "dtype=float16")
    assert json.loads((out / "config.json").read_text())["dtype"] == "float16"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_secret_in_a_copied_file_is_refused(
    trained: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "planted-key-99887766")
    run = Path(shutil.copytree(trained[0], tmp_path / "run"))
    (run / "model" / "NOTICE").write_text("key planted-key-99887766")
    code, output = run_export(run)
    assert (code, "NOTICE: holds a secret of the environment; nothing was written" in output) == (2, True)
    assert not (run / "export").exists()
    assert os.environ["MY_API_KEY"] not in output


@pytest.mark.slow
def test_from_a_training_to_another_program(preferences: Path, tiny_model: Path, tmp_path: Path) -> None:
    """By commands alone: trained beside frozen weights, evaluated, handed on."""
    pytest.importorskip("peft")
    done = stepdpo(
        "train", f"model={tiny_model}", "dataset=jsonl", f"dataset.path={preferences}", "dataset.heldout=4",
        "batch.pairs=8", "max_steps=2", "template=alpaca", "engine=local", "adapter=lora", "adapter.rank=16",
        "optim.lr=1e-2", "run=x",
        "then=[tinymath]", "then_with=task.limit=2 decode.max_tokens=8", cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.said
    done = stepdpo("export", "x", "out=handed/on", "dtype=float32", "--gguf", cwd=tmp_path, HF_TOKEN=HUB)
    assert done.code == 0, done.said
    assert "convert_hf_to_gguf.py" in done.out
    out, run = tmp_path / "handed" / "on", tmp_path / "runs" / "x"
    torch.testing.assert_close(logits(opened(out)), logits(opened(run / "model")), rtol=0, atol=0)
    content = (out / "README.md").read_text()
    fingerprint = json.loads((run / "data.json").read_text())["fingerprint"]
    for words in ("| rows | 28 |", "| train | 24 |", fingerprint, "| tinymath | greedy | strict |", "rank: 16"):
        assert words in content, words
    shutil.rmtree(run / "model")
    done = stepdpo("export", "x", "out=again", cwd=tmp_path)
    assert done.code == 2
    assert "has not finished" in done.err
    assert not (tmp_path / "again").exists()
