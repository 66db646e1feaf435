"""What users get wrong on the command line: each is told in one sentence that says what, where and what was meant.

Told before anything is loaded (torch cannot be imported here), with exit code 2 and nothing left on the disc.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.commands import tree
from support.forked import FORBIDDEN, Forks, Timed, opened

BOOLEANS = {
    "train force=yes_please run=x": "force: expected bool, got 'yes_please'",
    "train force=maybe": "force: expected bool, got 'maybe'",
    "train force=2": "force: expected bool, got 2",
    "train force=[true]": "force: expected bool, got [True]",
    "train resume=yep": "resume: expected bool, got 'yep'",
    "train resume=none run=x": "resume: expected bool, got 'none'",
    "train resume=[]": "resume: expected bool, got []",
    "eval resume=sure": "resume: expected bool, got 'sure'",
    "pairs force=of": "force: expected bool, got 'of'",
    "train algo=sft algo.per_token=perhaps": "algo.per_token: expected bool, got 'perhaps'",
    "train engine.gradient_checkpointing=3": "engine.gradient_checkpointing: expected bool, got 3",
}
NAMES = {
    "train algo=tdop": "algo=tdop: there is no such algo; did you mean 'tdpo'?",
    "train template=xyzzy": "known: alpaca, ",
    "train template=alpacca": "did you mean 'alpaca'?",
    "train alog=dpo": "alog: there is no such setting; did you mean 'algo'?",
    "train algo.bta=1": "algo.bta: there is no such setting; did you mean 'algo.beta'?",
    "train bacth.pairs=3": "bacth.pairs: there is no such setting; did you mean 'batch.pairs'?",
    "train lr=1": "lr: there is no such setting; did you mean 'optim.lr'?",
    "train beta=1": "beta: there is no such setting; did you mean 'algo.beta'?",
    "train algo=sft algo.beta=1": "algo.beta: there is no such setting; it belongs to algo=cdpo and algo=cpo",
    "train algo=dpo algo.alpha=1": "algo.alpha: there is no such setting; it belongs to algo=orpo and algo=tdpo",
    "train algo.gamma=1": "algo.gamma: there is no such setting; known in algo: beta, form, label_smoothing",
    "train adapter.rank=0": "adapter.rank: there is no such setting; it belongs to adapter=lora and adapter=qlora",
    "train engine=local engine.stage=2": "engine.stage: there is no such setting; it belongs to engine=zero",
    "train template=alpaca template.system=Hi": "there is no such setting; it belongs to template=native",
    "train level=steps": "level=steps: there is no such level; did you mean 'step'?",
    "train engine=zer": "did you mean 'zero'?",
    "train optim=adam": "did you mean 'adamw'?",
    "train adapter=lra": "did you mean 'lora'?",
    "train track=wandbb": "did you mean 'wandb'?",
    "train recipe=tinymat": "did you mean 'tinymath'?",
    "train experiment=step_dpo": "experiment=step_dpo: there is no such experiment",
    "train model=qwen2_7b_instruc": "did you mean 'qwen2_7b_instruct'?",
    "train model=nowhere": "model=nowhere: there is no such model; known: deepseek_math_7b_rl, ",
    "train dataset=tinymth": "did you mean 'tinymath'?",
    "eval task=gsm8": "task=gsm8: there is no such task; did you mean 'gsm8k'?",
    "eval decode=voet": "decode=voet: there is no such decode; did you mean 'vote'?",
    "eval scorer=valuehead": "scorer=valuehead: there is no such scorer; did you mean 'value_head'?",
    "eval decode.n=4": "decode.n: there is no such setting; it belongs to decode=best_of_n and decode=",
    "eval sampler=vlm": "did you mean 'vllm'?",
    "pairs pairs=mct": "did you mean 'mcts'?",
    "pairs pairs=sibling": "did you mean 'siblings'?",
    "pairs judge=opnai": "did you mean 'openai'?",
    "pairs judge.rollouts=8": "judge.rollouts: there is no such setting; it belongs to judge=rollouts",
    "pairs crew=rey": "did you mean 'ray'?",
    "pairs crew.workers=2": "crew.workers: there is no such setting; it belongs to crew=processes and crew=ray",
    "pairs sampler.workers=rey": "crew=rey: there is no such crew; did you mean 'ray'?",
    "train algo=": "algo=: there is no such algo",
    "train model=": "model=: there is no such model",
    "train dataset=": "dataset=: there is no such dataset",
    "train hydra/launcher=slrum": "hydra/launcher=slrum: there is no such option; ",
    "train hydra.nothing=1": "hydra.nothing: there is no such setting",
}
GRAMMAR = {
    "train force": "'force': not understood; settings are written key=value",
    "train algo dpo": "'algo': not understood; settings are written key=value",
    "train algo:dpo": "'algo:dpo': not understood; settings are written key=value",
    "train run=[a": "'run=[a': not understood; quote values with special characters",
    "train =3": "'=3': not understood",
    "train algo..beta=1": "'algo..beta=1': not understood",
    "train algo/beta=1": "algo/beta: there is no such setting; did you mean 'algo.beta'?",
    "train algo@x=dpo": "algo@x=dpo: a part has one place; write algo=...",
    "train +algo.beta=1": "+algo.beta=1: algo.beta is there already; write it without the +",
    "train +algo=dpo": "+algo=dpo: algo is there already; write it without the +",
    "train +epochs=3": "+epochs=3: epochs is there already; write it without the +",
    "train +foo=1": "foo: there is no such setting",
    "train ++foo.bar=1": "foo.bar: there is no such setting",
    "train ~foo": "foo: there is no such setting",
    "train ~algo=tdpo": "~algo=tdpo: is not there, so it cannot be left out",
    "train dataset.columns={prompt:query}": "takes new keys with a + in front: +dataset.columns={prompt:query}",
    "train algo=dpo,tdpo": "several values make a sweep; write `stepdpo train -m algo=...`",
    "train 'seed=range(1,3)'": "several values make a sweep; write `stepdpo train -m seed=...`",
    "train -m algo=dpo,tdop": "algo=tdop: there is no such algo; did you mean 'tdpo'?",
    "train 'seed=${'": "not understood; quote values",
    "train 'then={a:b}'": "then={a:b}: does not fit",
    "train +track.api_key=sk-CANARY0123456789abcdef": "track.api_key: holds a secret",
}
FLAGS = {
    "train --force": "--force: there is no such flag; settings are written without dashes: force=...",
    "train --resume=true": "--resume: there is no such flag; settings are written without dashes: resume=true",
    "train -x": "-x: there is no such flag",
    "train --config-dir nowhere": "--config-dir nowhere: there is no such folder; known: mine",
    "train --config-dir=mien": "--config-dir mien: there is no such folder; did you mean 'mine'?",
    "train -cd nowhere": "--config-dir nowhere: there is no such folder",
    "eval --config-dir": "--config-dir: a folder must follow",
    "train --config-name=x": "--config-name: a verb has one configuration",
    "train --cfg jobs": "--cfg jobs: there is no such choice; did you mean 'job'?",
    "train --cfg job alog=dpo": "alog: there is no such setting; did you mean 'algo'?",
    "train --cfg job --package algoo": "--package algoo: there is no such part; did you mean 'algo'?",
    "train --info nothing": "--info nothing: there is no such choice; known: all, config",
    "check good.jsonl --config-dir mien": "--config-dir mien: there is no such folder; did you mean 'mine'?",
}
OTHER_VERBS = {
    "train decode=greedy": 'decode: a setting of `stepdpo eval`, not of `stepdpo train`; words for the evaluations',
    "train decoder=greedy": "decoder: there is no such setting; `stepdpo eval` has 'decode'",
    "train temprature=0.7": "temprature: there is no such setting; `stepdpo pairs` has 'temperature'",
    "train n=8": 'n: a setting of `stepdpo pairs`, not of `stepdpo train`; words for the pairs of a round go into '
                 'rounds.pairs_with="n=8"',
    "train judge=openai": 'go into rounds.pairs_with="judge=openai"',
    "train +judge=exact": "judge: a setting of `stepdpo pairs`, not of `stepdpo train`",
    "train crew=ray": "crew: a setting of `stepdpo eval` and `stepdpo pairs`",
    "train task=gsm8k": "task: a setting of `stepdpo eval` and `stepdpo pairs`, not of `stepdpo train`",
    "train limit=5": "did you mean 'dataset.limit'?",
    "train tasks=[gsm8k]": "tasks: a setting of `stepdpo eval`",
    "eval algo=dpo": "algo: a setting of `stepdpo train`, not of `stepdpo eval`",
    "eval algo.beta=0.1": "algo.beta: a setting of `stepdpo train`",
    "eval epochs=3": "epochs: a setting of `stepdpo train`",
    "eval dataset=jsonl": "dataset: a setting of `stepdpo train`",
    "eval judge=exact": "judge: a setting of `stepdpo pairs`",
    "eval max_tokens=5": "did you mean 'decode.max_tokens'?",
    "eval then=[tinymath]": "then: a setting of `stepdpo train`",
    "pairs algo=dpo": "algo: a setting of `stepdpo train`",
    "pairs decode=greedy": "decode: a setting of `stepdpo eval`",
    "pairs engine.stage=3": "engine.stage: a setting of `stepdpo train`",
    "pairs rounds=3": "rounds: a setting of `stepdpo train`",
}  # fmt: skip
NESTED = {
    "train then=gsm8": "then: task=gsm8: there is no such task; did you mean 'gsm8k'?",
    "train then=[gsm8]": "then: task=gsm8: there is no such task; did you mean 'gsm8k'?",
    "train then=[gsm8k,mth]": "then: task=mth: there is no such task; did you mean 'math'?",
    "train then=1": "then: expected a list, got 1",
    "train then=[math] then_with=task.limt=5": "then: task.limt: there is no such setting; did you mean 'task.limit'?",
    "train then=[math] then_with=task.limit=0": "then: task.limit: limit must be at least 1, got 0",
    "train then=[tinymath] then_with=decode=gredy": "then: decode=gredy: there is no such decode",
    "train then=[tinymath] then_with=epochs=3": "then: epochs: a setting of `stepdpo train`, not of `stepdpo eval`",
    "train then=[tinymath] then_with=limit": "then: 'limit': not understood",
    "train then_with=task.limit=3": "then_with: words for evaluations, of which there are none; then=[TASK] names them",
    "eval task=tinymath,mth": "tasks: task=mth: there is no such task; did you mean 'math'?",
    "eval task=tinymath,gsm8k task.count=3": "tasks: task.count: there is no such setting",
    "eval task=tinymath,gsm8k task.limt=2": "task.limt: there is no such setting; did you mean 'task.limit'?",
    "train rounds=abc": "rounds.count: expected int, got 'abc'",
    "train rounds=-1": "rounds.count: count must not be negative, got -1",
    "train rounds=2 pairs=sibling": "rounds.pairs_with: pairs=sibling: there is no such pairs;",
    "train rounds=2 rounds.pairs_with=nn=3": "rounds.pairs_with: nn: there is no such setting; did you mean 'n'?",
    "train rounds=2 rounds.pairs_with=n=0": "rounds.pairs_with: n: n must be at least 1, got 0",
    "train rounds=2 rounds.pairs_with=limit=3": "limit=3: that is for the rounds to say (problems: rounds.problems)",
    "train rounds=2 rounds.pairs_with=algo=dpo": "rounds.pairs_with: algo: a setting of `stepdpo train`",
    "train rounds=2 rounds.reference=sfts": "rounds.reference: did you mean 'sft'?",
    "train rounds=2 rounds.problems=0": "rounds.problems: problems must be at least 1, got 0",
    "train rounds=2 dataset=jsonl": "dataset: rounds train on the pairs that they make themselves",
    "train rounds.problems=5": "rounds.problems: there are no rounds; say how many (rounds=3)",
    "train pairs=mcts": "pairs=mcts: say how many rounds (rounds=3), or make pairs by `stepdpo pairs`",
    "train -m seed=1,2 epochs=abc": "epochs: expected int, got 'abc'",
    "train -m batch.pairs=8,0": "batch.pairs: pairs must be at least 1, got 0",
    "train -m algo=dpo,tdpo run=x": "run: every job of a sweep has a folder of its own",
    "train -m algo=dpo,tdpo resume=true": "resume: a sweep begins anew; go on with its jobs one by one",
}
VALUES = {
    "train epochs=abc": "epochs: expected int, got 'abc'",
    "train epochs=2.5": "epochs: expected int, got 2.5",
    "train epochs=true": "epochs: expected int, got True",
    "train epochs=null": "epochs: expected int, got None",
    "train epochs=0": "epochs: epochs must be at least 1, got 0",
    "train max_steps=-1": "max_steps: max_steps must be at least 1, got -1",
    "train seed=-1": "seed: seed must not be negative, got -1",
    "train 'seed=${oc.env:NO_SUCH_NAME}'": "seed: \"Environment variable 'NO_SUCH_NAME' not found\"",
    "train save_every=-1": "save_every: save_every must not be negative, got -1",
    "train keep=0": "keep: keep must be at least 1, got 0",
    "train save_dtype=fp16": "save_dtype: did you mean 'float16'? (got 'fp16')",
    "train reference=cached": "reference: did you mean 'cache'? (got 'cached')",
    "train head=recomput": "head: did you mean 'recompute'?",
    "train attention=flash": "attention: known: auto, dense, flex, runs (got 'flash')",
    "train batch=5": "batch: holds settings of its own, which are set one by one: batch.pairs, ",
    "train batch.pairs=0": "batch.pairs: pairs must be at least 1, got 0",
    "train batch.tokens=0": "batch.tokens: tokens must be at least 1, got 0",
    "train batch.group=problems": "batch.group: did you mean 'problem'?",
    "train lengths.max_length=0": "lengths.max_length: max_length must be at least 2, got 0",
    "train lengths.overlong=cut": "lengths.overlong: known: drop, error, official (got 'cut')",
    "train algo.beta=-1": "algo.beta: beta must be positive, got -1.0",
    "train algo.beta=nan": "algo.beta: beta must be positive, got nan",
    "train algo.beta=": "algo.beta: expected float, got ''",
    "train algo.label_smoothing=1": "algo.label_smoothing: label_smoothing must lie in [0, 0.5], got 1.0",
    "train algo.form=sigmod": "algo.form: did you mean 'sigmoid'? (got 'sigmod')",
    "train algo=tdpo algo.alpha=-1": "algo.alpha: alpha must not be negative, got -1.0",
    "train algo=kto algo.desirable=-1": "algo.desirable: desirable must not be negative",
    "train +algo.bta=1": "algo.bta: stepdpo.algo.dpo.DPO has no such setting; did you mean 'beta'?",
    "train optim.lr=fast": "optim.lr: expected float, got 'fast'",
    "train optim.lr=nan": "optim.lr: lr must not be negative, got nan",
    "train optim.warmup=2": "optim.warmup: warmup must lie in [0, 1], got 2.0",
    "train optim.schedule=cosin": "optim.schedule: did you mean 'cosine'?",
    "train optim.beta1=1": "optim.beta1: beta1 must lie in [0, 1), got 1.0",
    "train optim.weight_decay=-1": "optim.weight_decay: weight_decay must not be negative",
    "train engine.stage=4": "engine.stage: stage must be 0, 1, 2 or 3, got 4",
    "train engine.processes=-2": "engine.processes: processes must be 0 (one a GPU, else one) or more, got -2",
    "train engine.dtype=float33": "engine.dtype: did you mean 'float32'? (got 'float33')",
    "train engine.device=gpu": "engine.device: did you mean 'cpu'?",
    "train engine.timeout_minutes=0": "engine.timeout_minutes: timeout_minutes must be at least 1, got 0",
    "train engine.master_port=99999999": "engine.master_port: master_port must lie in [0, 65535]",
    "train engine.deepspeed=5": "engine.deepspeed: is empty, and takes new keys with a + in front",
    "train engine.stage=0 engine.offload_optimizer=true": "engine.offload_optimizer: offload_optimizer needs stage",
    "train +engine.deepspeed.zero_optimization.stage=3": "engine.stage says that",
    "train adapter=lora adapter.rank=0": "adapter.rank: rank must be at least 1, got 0",
    "train adapter=lora adapter.targets=5": "adapter.targets: targets must be all-linear or a list of names, got 5",
    "train level.prefix=prompts": "level.prefix: did you mean 'prompt'?",
    "train template.date=yesterday": "template.date: date: expected a day such as 2026-12-01, got 'yesterday'",
    "train template=alpaca template.prompt=Hi": "template 'alpaca': the prompt must contain {question}",
    "train model=fresh model.layers=0": "model.layers: layers must be at least 1, got 0",
    "train model=fresh model.hidden_size=33": "model.hidden_size: hidden_size must be a multiple of 2 * heads",
    "train model=fresh model.heads=5": "model.",
    "train model=owner/name model.trust_remote_code=true": "needs model.revision: code that may change must not be run",
    "train dataset.max_bad=2": "dataset.max_bad: max_bad: expected a share between 0 and 1",
    "train dataset.heldout=some": "dataset.heldout: heldout: expected a share like 0.01 or '1%', got 'some'",
    "train dataset.heldout=-1": "dataset.heldout: heldout: expected a number of pairs or a share, got -1",
    "train dataset.limit=0": "dataset.limit: limit must be at least 1, got 0",
    "train dataset.format=trll": "dataset.format: did you mean 'trl'?",
    "train +dataset.columns.prmpt=query": "no format has a column 'prmpt'; did you mean 'prompt'?",
    "train dataset=tinymath_solutions dataset.count=0": "dataset.count: count must be at least 1, got 0",
    "train dataset=tinymath_solutions dataset.split=trian": "split: tinymath has none of the name 'trian'",
    "train track=wandb track.mode=onlin": "track.mode: did you mean 'online'?",
    "train run=[a]": "run: expected str, got ['a']",
    "train runs=[a]": "runs: expected str, got ['a']",
    "eval decode.max_tokens=0": "decode.max_tokens: max_tokens must be at least 1, got 0",
    "eval task.limit=abc": "task.limit: expected int, got 'abc'",
    "eval task.split=tset": "task.split: split: tinymath has none of the name 'tset'; did you mean 'test'?",
    "eval sampler.dtype=fp16": "sampler.dtype: did you mean 'bfloat16'?",
    "eval sampler.device=tpu": "sampler.device: device must be auto, cpu, cuda or one such as cuda:1, got 'tpu'",
    "pairs n=0": "n: n must be at least 1, got 0",
    "pairs temperature=0": "temperature: temperature must be positive, got 0.0",
    "pairs top_p=1.5": "top_p: top_p must lie in [0, 1], got 1.5",
    "pairs skip=-1": "skip: skip must not be negative, got -1",
    "pairs limit=0": "limit: limit must be at least 1, got 0",
    "pairs split=prefrence": "split: split: tinymath has none of the name 'prefrence'; did you mean 'preference'?",
    "pairs pairs.resample=-1": "pairs.resample: resample must not be negative, got -1",
    "pairs pairs=mcts pairs.cut.select_by=qq": "pairs.cut.select_by: did you mean 'q'?",
    "pairs pairs=mcts pairs.prior=papr": "pairs.prior: did you mean 'paper'?",
    "pairs pairs=rollouts pairs.rule=same": "pairs.rule: did you mean 'same_prefix'?",
    "pairs pairs=localise pairs.min_solve_rate=2": "pairs.min_solve_rate: min_solve_rate must lie in [0, 1], got 2.0",
    "pairs judge=openai judge.server.concurrency=0": "judge.server.concurrency: concurrency must be at least 1, got 0",
}  # fmt: skip
NEEDS = {
    "eval decode=best_of_n": "decode=best_of_n chooses by scores: add scorer=value_head (of a model trained with",
    "eval scorer=logprob": "scorer=logprob: decode=greedy looks at no scores; leave scorer= out",
    "train algo=null": "algo: not given",
    "train ~algo": "algo: not given",
    "train model=pretrained": "model.path: must be given",
    "train model=./nowhere": "model: './nowhere' holds no config.json",
    "train model=runs/x/model": "model: 'runs/x/model' holds no config.json",
    "train reference_model=./nowhere": "reference_model: './nowhere' holds no config.json",
    "train reference=adapter_off": "reference=adapter_off needs an adapter to switch off: adapter=lora",
    "train adapter=qlora engine.stage=3": "adapter=qlora cannot be trained at ZeRO 3, which splits numbers",
    "train dataset=jsonl": "dataset.path: no data given: set its path",
    "train dataset=god.jsonl": "dataset.path: god.jsonl: no such file or folder, and not a hub id",
    "train dataset.path=nowhere.jsonl": "dataset.path: nowhere.jsonl: no such file or folder",
    "train dataset=pkg://nowhere.jsonl": "pkg://nowhere.jsonl is not part of this installation",
    "train attention=flex": "attention=flex needs a CUDA device",
    "train engine.device=cuda": "engine.device=cuda: no GPU that torch can use is here",
    "train engine.hostfile=nowhere": "engine.hostfile=nowhere: cannot be read (No such file or directory)",
    "train engine.hostfile=good.jsonl": "engine.hostfile=good.jsonl: expected `host slots=8` on every line",
    "eval sampler.device=cuda": "sampler.device=cuda: no GPU that torch can use is here",
    "eval sampler=vllm": "sampler=vllm needs vLLM: pip install 'stepdpo[vllm]'",
    "eval sampler=openai sampler.server.url=localhost:8000": "sampler.server.url: url: expected http://... or https://",
    "eval task=gsm8k task.path=nowhere.jsonl": "task.path: nowhere.jsonl: no such file or folder",
    "eval model=./nowhere": "model: './nowhere' holds no config.json",
    "pairs judge=openai judge.server.url=null": "judge.server.url: expected str, got None",
    "pairs judge=openai judge.server.url=localhost": "judge.server.url: url: expected http://... or https://",
    "pairs task=gsm8k": "task=gsm8k has no exact step checker, which these pairs need; tasks that have one: tinymath",
    "pairs crew=processes sampler.device=cuda:1": "every worker of the crew has a GPU of its own, and knows it as",
    "pairs crew=processes crew.workers=0": "crew.workers: workers must be at least 1, got 0",
    "pairs pairs=recut": "pairs.path: must be given",
    "pairs pairs=recut pairs.path=nowhere.jsonl": "pairs.path: nowhere.jsonl: no such file or folder",
}  # fmt: skip
RUNS = {
    "train run=../x": "run name '../x'",
    "train run=/tmp/x": "run name '/tmp/x'",
    "train 'run=a b'": "run name 'a b'",
    "train runs=good.jsonl": "cannot be written to",
    "train force=true resume=true run=x": "give one of them",
    "train resume=true run=dmeo": "there is no run runs/dmeo; did you mean 'demo'?",
    "train resume=true": "resume=true: there is no run runs/dpo-step-native-tinymath-s0",
    "eval run=dmeo": "runs/dmeo: no such run; ",
    "eval run=dmeo resume=true": "there is no run runs/dmeo; did you mean 'demo'?",
    "pairs resume=true run=dmeo": "there is no run runs/dmeo; did you mean 'demo'?",
    "train run=demo": "already exists: resume=true goes on with it, force=true deletes it first",
    "train run=demo resume=true epochs=9": "was started with another configuration:",
}
TOOLS = {
    "trian": "No such command 'trian'. Did you mean 'train'?",
    "report": "Missing argument 'runs'",
    "report dmeo": "dmeo: no such run; did you mean 'demo'?",
    "report demo --base dmeo": "--base dmeo: no such run; did you mean 'demo'?",
    "report demo --control dmeo": "--control dmeo: no such run; did you mean 'demo'?",
    "report demo --focus dmeo": "--focus dmeo: is none of the runs; did you mean 'demo'?",
    "report demo --focus mine": "--focus mine: is none of the runs; ",
    "report demo --bas x": "No such option: --bas",
    "report demo --out good.jsonl": "--out good.jsonl: is no folder",
    "grade nowhere.jsonl": "nowhere.jsonl: cannot be read (No such file or directory)",
    "grade good.jsonl": "good.jsonl:1: no column 'response' (nor 'prediction')",
    "grade graded.jsonl --grader strickt": "--grader: did you mean 'strict'?",
    "grade graded.jsonl --out graded.jsonl": "--out: graded.jsonl is the file to be graded",
    "grade mine": "mine: cannot be read (Is a directory)",
    "check nowhere.jsonl": "nowhere.jsonl: no such file or folder",
    "check god.jsonl": "did you mean good.jsonl?",
    "check tinymth": "tinymth: neither a file nor a data set of conf/dataset; did you mean 'tinymath'?",
    "check mine": "mine: no .jsonl, .json, .csv, .parquet or .arrow file in this folder",
    "check sheet.xlsx": "sheet.xlsx: an Excel workbook is not read",
    "check empty.jsonl": "empty.jsonl: there are no rows in it",
    "check misspelt.jsonl": "column 'rejcted': did you mean 'rejected'?",
    "check graded.jsonl": "graded.jsonl: these are answers of a model, which are graded by `stepdpo grade FILE`",
    "export-data good.jsonl --output x.jsonl": "good.jsonl: no response with labelled steps",
    "export-data kto.jsonl --output x.jsonl --format stepwis": "--format: did you mean 'stepwise'?",
    "export-data kto.jsonl --output x.jsonl --threshold 2": "--threshold: expected a number between 0 and 1",
    "export-data kto.jsonl --output kto.jsonl": "--output: kto.jsonl is the source itself",
    "export-data nowhere.jsonl --output x.jsonl": "nowhere.jsonl: no such file or folder",
    "check torn.csv": "torn.csv:2: broken CSV",
    "check utf16.jsonl": "utf16.jsonl: this file is UTF-16; save it as UTF-8",
    "check bad.jsonl": "bad.jsonl:2: broken JSON",
    "check good.jsonl --level steps": "level=steps: there is no such level; did you mean 'step'?",
    "check good.jsonl --task gsm8": "task=gsm8: there is no such task; did you mean 'gsm8k'?",
    "check good.jsonl --task tinymath,gsm8": "task=gsm8: there is no such task; did you mean 'gsm8k'?",
    "check good.jsonl --max-bad 2": "--max-bad: expected a share between 0 and 1",
    "check good.jsonl --max_bad 2": "No such option: --max_bad",
    "check good.jsonl --format trll": "dataset.format: did you mean 'trl'?",
    "check good.jsonl --columns prompt": "--columns prompt: written as OURS=THEIRS",
    "check good.jsonl --columns prmpt=question": "no format has a column 'prmpt'; did you mean 'prompt'?",
    "check good.jsonl --columns question=qestion": "no column 'qestion' (a string); did you mean 'question'?",
    "check good.jsonl --template alpaca": "--template alpaca: is what a model reads; name one by --model",
    "check good.jsonl --model tinymath --template alpacca": "template=alpacca: there is no such template",
    "check good.jsonl --model nowhere": "model=nowhere: there is no such model",
    "check good.jsonl --model ./nowhere": "--model: './nowhere' holds no config.json",
    "check good.jsonl --pairs 0": "Invalid value for '--pairs'",
    "check good.jsonl --json mine": "--json: mine cannot be written",
    "check good.jsonl --json good.jsonl/x.json": "--json: good.jsonl/x.json cannot be written",
    "check good.jsonl level=step": "unexpected extra argument",
}
TABLE = BOOLEANS | NAMES | GRAMMAR | FLAGS | OTHER_VERBS | NESTED | VALUES | NEEDS | RUNS | TOOLS
"""Words after `stepdpo`, and what must be said of them."""
SAMPLE = list(TABLE)[::3]
"""Every third is among the default tests, all of them among the slow ones."""
SECONDS = 5.0
"""Of the processor, for the command and all that it starts."""


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with opened(tmp_path_factory.mktemp("forks")) as found:
        yield found


def prepare(folder: Path) -> None:
    """A user's folder: some data, options of one's own, and a finished run."""
    pairs = [{"question": f"2 + {n}?", "chosen": f"{n + 2}", "rejected": f"{n + 3}"} for n in (3, 4)]
    files = {
        "good.jsonl": lines(*pairs),
        "bad.jsonl": lines(pairs[0]) + "{not json\n",
        "misspelt.jsonl": lines(*({**pair, "rejcted": pair["rejected"], "rejected": None} for pair in pairs)),
        "graded.jsonl": lines({"problem": "2 + 3?", "response": "5", "answer": "5"}),
        "kto.jsonl": lines({"prompt": "2 + 3?", "completion": "5", "label": True}),
        "empty.jsonl": "",
        "torn.csv": 'question,chosen,rejected\n2 + 3?,5,"6\n2 + 4?,6,7\n',
        "sheet.xlsx": "PK",
        "mine/task/sums.yaml": "_target_: stepdpo.data.tasks.Task\nname: sums\npath: sums.jsonl\n",
        "runs/demo/manifest.json": json.dumps({"stepdpo": "0.1.0", "argv": [], "seed": 0, "choices": {}}),
        "runs/demo/config.yaml": "epochs: 1\n",
        "runs/demo/model/config.json": "{}",
        "runs/demo/eval/sums/summary.json": "{}",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "utf16.jsonl").write_text(lines(*pairs), encoding="utf-16")


def lines(*rows: dict[str, object]) -> str:
    return "".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows)


def told(row: str, forks: Forks, folder: Path) -> Timed:
    """Try a mistake, and see that it is told as it should be."""
    prepare(folder)
    before = tree(folder)
    tried = forks(shlex.split(row), folder, COLUMNS="200", CUDA_VISIBLE_DEVICES="")
    done = tried.done
    assert done.code == 2, done.said
    assert TABLE[row] in done.err, done.err
    assert "Traceback" not in done.said
    assert FORBIDDEN not in done.said
    assert "CANARY" not in done.said
    assert "HYDRA_FULL_ERROR" not in done.said
    ours = done.err.startswith("error: ") and done.err.count("error: ") == 1
    assert ours or "Error" in done.err, done.err  # Typer's frame around a verb or an option that it does not know
    # Locks stay in a run's folder, whoever held them.
    assert {name for name in tree(folder) if not name.startswith("runs/demo/.lock")} == before
    return tried


@pytest.mark.parametrize("row", SAMPLE)
def test_a_mistake_is_told_before_anything_is_done(row: str, forks: Forks, tmp_path: Path) -> None:
    told(row, forks, tmp_path)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_none_takes_more_than_seconds_to_be_told(forks: Forks, tmp_path: Path) -> None:
    wrong, longest = {}, 0.0
    for number, row in enumerate(TABLE):
        (tmp_path / str(number)).mkdir()
        try:
            tried = told(row, forks, tmp_path / str(number))
        except AssertionError as error:
            wrong[row] = str(error)
            continue
        longest = max(longest, tried.seconds)
        if tried.seconds >= SECONDS:
            wrong[row] = f"{tried.seconds:.1f} s"
    print(f"{len(TABLE)} mistakes, the longest told after {longest:.1f} s of the processor")
    assert not wrong, "\n".join(f"{row}: {why}" for row, why in wrong.items())


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 200
