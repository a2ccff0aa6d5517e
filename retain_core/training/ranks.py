"""Several processes that train one arm together: who this one is, and how all share a batch.

They are started by `retain_core.launch`, or by hand with `accelerate launch` or `torchrun`. Each has its share of every
batch, in order, so that all shares together are the batch of a single process; what is random is drawn for the whole
batch by everybody. Numbers then are those of one process but for rounding. Process 0, the main one, decides, writes and
evaluates; the others do what it asks them to. In a single process everything here leaves its argument as it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from retain_core.errors import InputError
from retain_core.store import Store

if TYPE_CHECKING:
    import torch

PATIENCE = timedelta(days=7)
"""How long the others wait for the main process, which may wait for a lease or evaluate; one that died ends all at once."""

_OF_LAUNCHERS = {
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE",
    "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT",
}  # fmt: skip

Value = TypeVar("Value")


def count() -> int:
    """How many processes train together."""
    if not (_at_work and _joined()):
        return 1
    from torch import distributed

    return int(distributed.get_world_size())


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    """Whether this is the one that writes."""
    return rank() == 0


def _joined() -> bool:
    from torch import distributed

    return bool(distributed.is_available() and distributed.is_initialized())


def join(expected: int) -> None:
    """Meet the other processes, and use the accelerator of this one. Raises InputError unless they are as many as expected."""
    import torch
    from accelerate import PartialState

    if (started := int(os.environ["WORLD_SIZE"])) != expected:
        raise InputError(
            f"{started} processes were started for an arm of {expected} (execution.processes_per_arm of its study)"
        )
    on_cpu = not torch.cuda.is_available()
    if on_cpu and os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        raise InputError("DeepSpeed trains on GPUs, and this machine has none")
    PartialState(cpu=on_cpu, timeout=PATIENCE, **({"backend": "gloo"} if on_cpu else {}))


def in_shards_on_cpu(arguments: Value) -> Value:
    """A trainer's arguments, under which FSDP makes shards on a CPU too; accelerate does not, and says nothing."""
    state: Any = getattr(arguments, "distributed_state", None)
    if count() > 1 and state.device.type == "cpu" and os.environ.get("ACCELERATE_USE_FSDP") == "true":
        from accelerate import DistributedType

        state.distributed_type = DistributedType.MULTI_GPU
    return arguments


_at_work = False
"""Whether this process is doing what all do at once; else it is on its own, whatever the others do."""


def together(work: Callable[..., Value], *arguments: Any) -> Value:
    """Called by the main process: let all do this work at once. A store is given to the others without its lease."""
    if _joined():
        _from_main((work, [Store(a.root) if isinstance(a, Store) else a for a in arguments]))
    return _do(work, arguments)


def dismiss() -> None:
    """Called by the main process: there is no more work for the others, and it goes on as if it had been alone."""
    if not _joined():
        return
    _from_main(None)
    leave()


def leave() -> None:
    """Forget the other processes: what is computed from here on takes this one for the only one."""
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from torch import distributed

    distributed.destroy_process_group()
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    for name in list(os.environ):
        if name in _OF_LAUNCHERS or name.startswith(("ACCELERATE_", "FSDP_", "TORCHELASTIC_")):
            del os.environ[name]


def serve() -> None:
    """Called by every other process: do what the main one asks for, until it dismisses."""
    while (asked := _from_main(None)) is not None:
        _do(*asked)
    leave()


def _do(work: Callable[..., Value], arguments: Sequence[Any]) -> Value:
    global _at_work
    _at_work = True
    try:
        return work(*arguments)
    finally:
        _at_work = False


def from_main(value: Callable[[], Value]) -> Value:
    """What the function gives in the main process, in all of them; it is called there only."""
    if count() == 1:
        return value()
    found: Value = _from_main(value() if is_main() else None)
    return found


def gathered(value: Value) -> list[Value]:
    """Every process's value, in order."""
    from torch import distributed

    if count() == 1:
        return [value]
    values: list[Any] = [None] * count()
    distributed.all_gather_object(values, value)
    return values


def whole(share: Sequence[Value]) -> list[Value]:
    """The rows of all processes together."""
    return [row for rows in gathered(list(share)) for row in rows]


def share(rows: Any) -> Any:
    """This process's rows of a list or a tensor of the whole batch."""
    return rows if count() == 1 else rows[len(rows) * rank() // count() : len(rows) * (rank() + 1) // count()]


def total(number: float) -> float:
    """The sum over all processes."""
    return number if count() == 1 else sum(gathered(number))


def mean(number: float) -> float:
    """The mean over all processes, whose shares are equally large."""
    return total(number) / count()


def sum_of(part: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over all processes, without a gradient."""
    from torch import distributed

    if count() > 1:
        part = part.detach().clone()
        distributed.all_reduce(part)
    return part


def average_gradients(module: torch.nn.Module) -> None:
    """Gradients as the mean over all processes, of a module that is not the trainer's own."""
    from torch import distributed

    if count() > 1:
        for weight in module.parameters():
            distributed.all_reduce(weight.grad)
            weight.grad /= count()


def main_streams() -> dict[str, Any]:
    """The random streams of the main process, with its accelerator's for those of this one."""
    import torch

    from retain_core.training.stream import random_streams

    streams = random_streams()
    if count() > 1 and streams["cuda"]:
        streams["cuda"] = [streams["cuda"][torch.cuda.current_device()]] * len(streams["cuda"])
    return from_main(lambda: streams)


@contextlib.contextmanager
def drawing_for_all(rows: int) -> Iterator[None]:
    """Within it `generate` samples this process's share of `rows` prompts with the draws of one process that has them all.

    `torch.multinomial` of one draw is the largest of the probabilities over exponential noise. Here everybody makes the noise
    of all rows and uses its own. Whoever ends early makes what the others still made, so that all streams go on alike.
    """
    import torch

    if count() == 1:
        yield
        return
    noise: list[torch.Tensor] = []
    usual = torch.multinomial

    def draw(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        assert num_samples == 1
        noise[:] = [probabilities.new_empty((rows, probabilities.shape[1]))]
        draws.append(1)
        return (probabilities / share(noise[0].exponential_(1))).argmax(dim=-1, keepdim=True)

    draws: list[int] = []
    torch.multinomial = draw
    try:
        yield
    finally:
        torch.multinomial = usual
    for _ in range(max(gathered(len(draws))) - len(draws)):
        noise[0].exponential_(1)


def _from_main(value: Any) -> Any:
    from torch import distributed

    carried = [value]
    distributed.broadcast_object_list(carried, src=0)
    return carried[0]
