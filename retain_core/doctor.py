"""What is wrong with a set-up, and the mend: one line for each thing that was looked at. Nothing is changed."""

from __future__ import annotations

import difflib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from retain_core.devices import cores
from retain_core.redact import redact
from retain_core.settings import Settings

OK, WARNING, PROBLEM = "ok", "warning", "problem"
Findings = Iterator[tuple[str, str]]
"""Level and sentence."""

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"
ROOM = {PROBLEM: 0.2e9, WARNING: 2e9}
"""Free bytes below which it is said."""
CLOCK_SECONDS = 5.0
OTHER_SETTINGS = {"RETAIN_CODE", "RETAIN_UP", "RETAIN_UP_PART"}
"""Set by retain itself or read by prefect.yaml."""


def doctor(say: Callable[[str], None]) -> int:
    """Look at everything and say a line for each. Returns 1 where something is a problem, else 0."""
    from retain_core import doctor_services as services

    try:
        config = Settings()
    except ValueError as error:
        say(redact(f"problem  settings: {' '.join(str(error).split())}"))
        return 1
    home = config.home.absolute()
    looks: dict[str, Callable[[], Findings]] = {
        "python": python, "packages": lambda: packages(CONSTRAINTS), "settings": lambda: known_settings(os.environ),
        "device": device, "threads": lambda: threads(os.environ), "home": lambda: writable(home), "clock": lambda: clock(home),
        "warehouse": lambda: warehouse(config.warehouse), "mlflow": lambda: services.mlflow(config),
        "prefect": lambda: services.prefect(home, os.environ), "hub": lambda: services.hub(os.environ),
    }  # fmt: skip
    levels = set()
    for name, look in looks.items():
        for level, sentence in look():
            levels.add(level)
            say(redact(f"{level:<8} {name}: {sentence}"))
    return int(PROBLEM in levels)


def python() -> Findings:
    """Versions of Python that retain is tested on."""
    told = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        yield OK, told
    else:
        yield PROBLEM, f"{told}; retain needs 3.11 to 3.13: make the environment with one of them"


def packages(constraints: Path) -> Findings:
    """Installed versions against the tested ones."""
    if not constraints.is_file():
        yield OK, "no constraints.txt here, so versions are not compared"
        return
    pins = dict(line.split("==") for line in constraints.read_text(encoding="utf-8").split() if "==" in line)
    installed = {name: _installed(name) for name in pins}
    others = [f"{name} {has} (tested {pins[name]})" for name, has in installed.items() if has and has != pins[name]]
    absent = [
        name for name in ("torch", "transformers", "trl", "prefect", "mlflow", "duckdb") if not installed.get(name, "yes")
    ]
    if absent:
        yield PROBLEM, f"{', '.join(absent)} not installed; pip install -c constraints.txt -e ."
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        yield WARNING, f"{', '.join(others[:5])}{more}; pip install -c constraints.txt -e ."
    if not absent and not others:
        yield OK, f"{sum(map(bool, installed.values()))} as in constraints.txt"


def known_settings(environment: Mapping[str, str]) -> Findings:
    """RETAIN_* variables that nothing reads are most often misspelt."""
    known = {f"RETAIN_{name.upper()}" for name in Settings.model_fields} | OTHER_SETTINGS
    unknown = sorted(name for name in environment if name.startswith("RETAIN_") and name not in known)
    for name in unknown:
        near = difflib.get_close_matches(name, sorted(known), n=1)
        yield WARNING, f"{name} is no setting" + (f"; do you mean {near[0]}?" if near else "; docs/reference.md lists them")
    if not unknown:
        yield OK, ", ".join(sorted(known & environment.keys())) or "none is set"


def device() -> Findings:
    """A GPU that the system has and torch does not see is a problem; none at all is not."""
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield OK, f"torch {torch.__version__}, {', '.join(names)}"
    elif os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        yield OK, f"torch {torch.__version__}, CPU; CUDA_VISIBLE_DEVICES hides every GPU"
    elif Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi"):
        build = torch.version.cuda or "without CUDA"
        yield (
            PROBLEM,
            f"there is an NVIDIA driver, but torch {torch.__version__} (CUDA: {build}) sees no GPU; compare `nvidia-smi`",
        )
    else:
        yield OK, f"torch {torch.__version__}, CPU; no NVIDIA driver here"


def threads(environment: Mapping[str, str]) -> Findings:
    """More threads than cores make everything slower."""
    told, here = environment.get("OMP_NUM_THREADS", ""), cores()
    if told.isdigit() and int(told) > here:
        yield WARNING, f"OMP_NUM_THREADS={told} on {here} cores is slow; unset it: retain gives every arm its threads"
    else:
        yield OK, f"{here} cores"


def writable(home: Path) -> Findings:
    """Room, the right to write, and locks that lock."""
    from filelock import FileLock, Timeout

    place = next(folder for folder in (home, *home.parents) if folder.exists())
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".doctor-") as folder, FileLock(f"{folder}/lock"):
            try:
                FileLock(f"{folder}/lock").acquire(timeout=0)
                yield PROBLEM, f"two locks of one file can be held in {place}; take a file system that locks (NFS: version 4)"
            except Timeout:
                yield OK, f"{home} can be written to, and locks work"
    except (OSError, NotImplementedError) as error:
        yield (
            PROBLEM,
            f"{place} cannot be written to or locked ({error.__class__.__name__}); set RETAIN_HOME to a folder of yours",
        )
        return
    free = shutil.disk_usage(place).free
    level = next((level for level, least in ROOM.items() if free < least), OK)
    yield level, f"{free / 1e9:.1f} GB free" + ("" if level == OK else "; `retain gc` shows what can go")


def clock(home: Path, now: Callable[[], float] = time.time) -> Findings:
    """The clock of this machine against the one that stamps the files of the home: leases need both to agree."""
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-") as file:
            off = now() - Path(file.name).stat().st_mtime
    except OSError:
        return
    if abs(off) > CLOCK_SECONDS:
        yield PROBLEM, f"differs by {abs(off):.0f} s from that of {place}; leases need clocks that agree: set it (NTP)"
    else:
        yield OK, "agrees with that of the home"


def warehouse(path: Path) -> Findings:
    """Whether it can be read, and its version."""
    import duckdb

    from retain_core.errors import RetainError
    from retain_core.warehouse.load import SCHEMA_VERSION
    from retain_core.warehouse.query import open_warehouse

    if not path.is_file():
        yield OK, "none yet; the first study makes it"
        return
    try:
        with open_warehouse(path) as con:
            (found,) = con.execute("SELECT max(version) FROM schema_version").fetchone() or (None,)
    except (RetainError, duckdb.Error) as error:
        yield PROBLEM, str(error).splitlines()[0]
        return
    if found == SCHEMA_VERSION:
        yield OK, f"schema version {found}"
    elif found is not None and found > SCHEMA_VERSION:
        yield PROBLEM, f"schema version {found} is of a newer retain (this one: {SCHEMA_VERSION}); update retain"
    else:
        yield WARNING, f"schema version {found}; the next `retain run` rebuilds it as {SCHEMA_VERSION}"


def _installed(name: str) -> str | None:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None
