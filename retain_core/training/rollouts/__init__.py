"""Sampling from the policy on a server of its own, such as vLLM's, in place of the trainer's own sampling."""
