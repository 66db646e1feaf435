"""Where parts were before they moved: run folders written then, and configurations of users, name them so."""

from __future__ import annotations

from collections.abc import Mapping

MOVED: Mapping[str, str] = {
    "stepdpo.construct.Construction": "stepdpo.pairs.config.PairsConfig",
    "stepdpo.crew.here.Here": "stepdpo.crew.local.LocalExecutor",
    "stepdpo.crew.ray.OnRay": "stepdpo.crew.ray.RayExecutor",
    "stepdpo.dataset.Dataset": "stepdpo.data.dataset.Dataset",
    "stepdpo.dataset.TinymathSolutions": "stepdpo.tinymath.solutions.TinymathSolutions",
    "stepdpo.decode.greedy.Greedy": "stepdpo.generation.decoding.greedy.Greedy",
    "stepdpo.engine.local.Local": "stepdpo.training.engine.local.Local",
    "stepdpo.engine.zero.Zero": "stepdpo.training.engine.zero.Zero",
    "stepdpo.evaluate.Evaluation": "stepdpo.evaluation.evaluate.Evaluation",
    "stepdpo.judge.exact.Exact": "stepdpo.pairs.judges.exact.Exact",
    "stepdpo.judge.openai.OpenAIJudge": "stepdpo.pairs.judges.openai.OpenAIJudge",
    "stepdpo.judge.rollouts.Rollouts": "stepdpo.pairs.judges.rollouts.Rollouts",
    "stepdpo.level.Instance": "stepdpo.data.level.Instance",
    "stepdpo.level.Step": "stepdpo.data.level.Step",
    "stepdpo.model.adapter.Lora": "stepdpo.models.lora.Lora",
    "stepdpo.model.adapter.NoAdapter": "stepdpo.models.lora.NoAdapter",
    "stepdpo.model.load.Fresh": "stepdpo.models.load.Fresh",
    "stepdpo.model.load.Pretrained": "stepdpo.models.load.Pretrained",
    "stepdpo.optim.AdamW": "stepdpo.training.optimizer.AdamW",
    "stepdpo.pairs.executors.local.LocalExecutor": "stepdpo.crew.local.LocalExecutor",
    "stepdpo.pairs.executors.ray.RayExecutor": "stepdpo.crew.ray.RayExecutor",
    "stepdpo.sampler.openai.OpenAISampler": "stepdpo.generation.openai.OpenAISampler",
    "stepdpo.sampler.transformers.TransformersSampler": "stepdpo.generation.transformers.TransformersSampler",
    "stepdpo.sampler.vllm.VllmSampler": "stepdpo.generation.vllm.VllmSampler",
    "stepdpo.server.settings.Server": "stepdpo.generation.client.config.Server",
    "stepdpo.task.Task": "stepdpo.data.tasks.Task",
    "stepdpo.task.TinymathTask": "stepdpo.tinymath.task.TinymathTask",
    "stepdpo.template.MixedTemplate": "stepdpo.data.templates.MixedTemplate",
    "stepdpo.template.NativeTemplate": "stepdpo.data.templates.NativeTemplate",
    "stepdpo.template.TextTemplate": "stepdpo.data.templates.TextTemplate",
    "stepdpo.track.NoTracking": "stepdpo.runtime.tracking.NoTracking",
    "stepdpo.track.Wandb": "stepdpo.runtime.tracking.Wandb",
    "stepdpo.train.Training": "stepdpo.training.config.Training",
    "stepdpo.workshop.cuts.Cut": "stepdpo.pairs.tree.pair_selection.PairSelection",
}
"""`_target_` of then -> `_target_` of now. The only trace of the old names, none of which is ever taken out."""
