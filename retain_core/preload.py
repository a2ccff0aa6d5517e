"""Imported once by the forkserver, so that every arm's process starts with the heavy modules at hand."""

import gc

import accelerate  # noqa: F401
import lm_eval.evaluator
import lm_eval.models.huggingface
import lm_eval.tasks  # noqa: F401
import trl  # noqa: F401
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, Trainer  # noqa: F401
from trl import GRPOTrainer, SFTTrainer  # noqa: F401

import retain_core.arm
import retain_core.evaluation.harness
import retain_core.support
import retain_core.training.imitation
import retain_core.training.policy  # noqa: F401

gc.freeze()  # trainers collect garbage; what was imported never is any, and memory that nobody touches stays shared
