"""What a user brings along without touching retain: benchmarks, a target and its verifier, methods (docs/extend.md)."""
