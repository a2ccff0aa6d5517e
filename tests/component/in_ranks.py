"""Golden methods, each trained by several processes together. Started by `accelerate launch`; what it finds lies in a folder.

accelerate launch ... -m tests.component.in_ranks BASE FOLDER UPDATES LABEL...

With ROLLOUTS in the environment the server at that address samples.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from retain_core.lab.targets import Countdown
from retain_core.store import Store
from retain_core.training import ranks
from retain_core.training.rollouts.setting import RolloutServer
from retain_core.training.size import WHOLE, TrainingSize
from retain_core.training.traces import make_traces
from retain_core.training.train import train
from tests.component import golden


def main(base, folder, updates, *labels):
    torch.set_num_threads(1)
    Countdown.accepts = lambda _, key, answer: golden.by_content(answer)
    ranks.join(2)
    if not ranks.is_main():
        ranks.serve()
        return
    shards, usual = [], DTensor.full_tensor
    DTensor.full_tensor = lambda weight: shards.append(weight.to_local().numel() < weight.numel()) or usual(weight)
    address = os.environ.get("ROLLOUTS")
    size = TrainingSize(rollouts=RolloutServer(server=address)) if address else WHOLE
    for label in labels:
        spec = golden.arm_spec(label, golden.METHODS[label], updates=int(updates), processes=2, size=size)
        store = Store(Path(folder) / label)
        traces = make_traces(spec, Path(base), Store(Path(folder) / "home")) if spec.config.get("traces_of") else None
        found = ranks.together(train, spec, Path(base), store, traces, 3600.0)
        (store.root / "found.json").write_text(json.dumps(asdict(found) | {"shards": len(shards)}))
        shards.clear()
    ranks.dismiss()


if __name__ == "__main__":
    main(*sys.argv[1:])
