"""TRL's GRPO trainer with the advantage and the KL penalty of retain in place of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from trl import GRPOTrainer

from retain_core.training import ranks
from retain_core.training.encode import padded
from retain_core.training.kl import kl_on_text, kl_penalty
from retain_core.training.policy.advantages import group_advantages
from retain_core.training.policy.sampler import refresh, sampling_copy
from retain_core.training.policy.slices import mixed
from retain_core.training.rollouts.policy import Rollouts
from retain_core.training.size import WHOLE, TrainingSize, compile_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PolicyTrainer(GRPOTrainer):  # type: ignore[misc]
    """A policy gradient on own samples: sampling, ratio, clipping and normaliser are TRL's, set in `configs.grpo_config`.

    The loss is that of the samples plus `kl` times `kl_penalty` against the frozen base: along the samples, under
    the distribution they were drawn from, or along the base's own answers to retention prompts.
    """

    def __init__(
        self,
        *args: Any,
        dials: dict[str, Any],
        base: PreTrainedModel | None,
        retention: list[dict[str, list[int]]] | None,
        size: TrainingSize = WHOLE,
        rollouts: Rollouts | None = None,
        **kwargs: Any,
    ) -> None:
        """`base` is None where `kl` is 0; `retention` holds `sequences_per_update` rows for every update.

        `rollouts` samples in place of the trainer.
        """
        super().__init__(*args, **kwargs)
        alone = self.accelerator.num_processes == 1
        self._sampler = sampling_copy(self.model) if self.args.bf16 and alone and rollouts is None else None
        self._rollouts = rollouts
        if size.compile:
            compile_layers(self.model)
        self.dials = dials
        self.base = base
        self._retention = retention
        self.tokens_trained = 0

    def resume_state(self) -> dict[str, Any]:
        """What the method knows beside what TRL's trainer does."""
        return {"tokens_trained": self.tokens_trained, "reward": self.reward_funcs[0].resume_state()}

    def resume_from(self, state: dict[str, Any]) -> None:
        """Go on from what `resume_state` gave."""
        self.tokens_trained = state["tokens_trained"]
        self.reward_funcs[0].resume_from(state["reward"])

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        if ranks.count() == 1:
            inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
            return inputs
        # TRL mixes the samples of a process by themselves, and one process would mix all.
        slices = self.args.steps_per_generation
        if self._step % (slices * self.num_iterations) == 0 or self._buffered_inputs is None:
            samples = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs: list[dict[str, Any]] | None = mixed(samples, slices, self.processing_class.pad_token_id)
        assert self._buffered_inputs is not None
        return dict(self._buffered_inputs[self._step % slices])

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> Any:
        if self._rollouts is not None:
            answers = self._rollouts.sample(
                self.model, ranks.whole(prompt_ids), update=self.state.global_step, temperature=self.temperature,
                longest=self.max_completion_length, bf16=self.args.bf16,
            )  # fmt: skip
            for name, value in self._rollouts.gap.items():
                self._metrics["train"][name].append(value)
            return ranks.share(answers), None
        if self._sampler is None:
            with ranks.drawing_for_all(self.args.generation_batch_size):
                return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        refresh(self._sampler, self.model)
        policy: Any = self.model_wrapped
        self.model_wrapped: Any = self._sampler
        try:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        finally:
            self.model_wrapped = policy

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        rewards: torch.Tensor = super()._calculate_rewards(*args, **kwargs)
        self._rewards = rewards.sum(dim=1)
        return rewards

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        scored: dict[str, Any] = super()._generate_and_score_completions(inputs)
        count, process = len(inputs), self.accelerator.process_index
        advantages = group_advantages(self._rewards, self.dials["advantage"], self.num_generations)
        scored["advantages"] = advantages[process * count : (process + 1) * count]
        return scored

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        self.tokens_trained += int(ranks.total(int(inputs["completion_mask"].sum())))
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        if (penalty := self._penalty(model, inputs)) is not None:
            self._metrics["train"]["kl"].append(ranks.mean(penalty.item()))
            loss = loss + self.dials["kl"] * penalty / self.current_gradient_accumulation_steps
        return loss

    def _penalty(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor | None:
        """The KL penalty of this update with the policy's gradient; None where nothing is penalised."""
        if self.base is None:
            return None
        if self._retention is not None:
            size = self.args.train_batch_size * ranks.count()  # of a micro-batch: that is what TRL counts in _step
            rows = ranks.share(self._retention[self._step * size : (self._step + 1) * size])
            ids, labels, mask = (t.to(self.accelerator.device) for t in padded(rows, self.processing_class.pad_token_id))
            with self.accelerator.autocast():
                on_text: torch.Tensor = kl_on_text(model, self.base, ids, mask, labels, "exact")
            return on_text
        with torch.no_grad():
            base_logits = self.completion_logits(self.base, inputs)
        policy_logits = self.completion_logits(model, inputs)
        tokens, counted = inputs["completion_ids"], inputs["completion_mask"]
        return kl_penalty(policy_logits, base_logits, tokens, counted, self.dials["kl_estimator"], self.temperature)

    def completion_logits(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """B x T x vocabulary: the logits that each token of a sample was drawn from, before the temperature."""
        ids, mask = whole(inputs)
        length = inputs["completion_ids"].shape[1]
        with self.accelerator.autocast():
            logits: torch.Tensor = model(input_ids=ids, attention_mask=mask, logits_to_keep=length + 1).logits
        return logits[:, :-1]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds `clip_share` (of the tokens that count, those whose gradient clipping cut) and `reward_failures` (so far)."""
        metrics = self._metrics["train"]
        if clipped := metrics.get("clip_ratio/region_mean"):
            metrics["clip_share"] = clipped
            metrics["reward_failures"] = [float(ranks.total(self.reward_funcs[0].failures))]
        for name in [name for name in metrics if name.startswith("clip_ratio/")]:
            del metrics[name]
        super().log(logs, start_time)


def whole(inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of prompts with their samples, B x (P + T)."""
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    return ids, torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
