"""Every part of the accelerator's benchmark runs at tiny width: what it says there means nothing, but it says something."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, environment

PARTS = {
    "rate": {"flops_per_second"},
    "sft": {"tokens_per_second", "share_of_rate", "estimated_bytes", "seconds_to_prepare"},
    "grpo": {"seconds_sampling", "seconds_log_probabilities", "seconds_update", "sampling_over_library"},
    "evaluation": {"items_per_second"},
    "passes": {"peak_bytes", "estimated_bytes"},
    "resume": {"killed", "killed_and_whole"},
}


@pytest.mark.slow
def test_every_part_runs_at_tiny_width(tmp_path):
    out = tmp_path / "accelerator.json"
    command = [sys.executable, "-m", "benchmarks.accelerator", "--tiny", "--seconds", "100000", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())["part"]
    assert found.keys() == PARTS.keys()
    for part, wanted in PARTS.items():
        for case, entry in found[part].items():
            assert wanted <= entry.keys(), f"{part} {case}: {entry}"
    for entry in found["resume"].values():
        assert entry["killed"]
        assert entry["killed_and_whole"] == {"bit_for_bit": True, "largest_difference": 0.0}


@pytest.mark.slow
def test_a_spent_budget_leaves_out_what_would_not_end_in_it(tmp_path):
    out = tmp_path / "accelerator.json"
    command = [
        sys.executable, "-m", "benchmarks.accelerator", "--tiny", "--parts", "rate", "sft", "--seconds", "1", "--out", str(out)
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, env=environment(tmp_path), capture_output=True, check=True, timeout=300)
    found = json.loads(out.read_text())["part"]
    assert found["rate"]["bf16"]["flops_per_second"] > 0
    assert all("left out" in entry for entry in found["sft"].values())
