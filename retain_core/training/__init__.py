"""Post-training one arm: what it trains on, with which trainer and which explicit settings."""
