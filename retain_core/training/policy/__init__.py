"""Methods that learn from a reward on their own samples: REINFORCE, RLOO, GRPO, Dr. GRPO and PPO."""
