"""The class of machines that compute the same bits."""

import pytest

from retain_core.arms import computed_by
from retain_core.machine import gpus, platform_class, processor


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("GenuineIntel", "fpu avx avx2 avx512f avx512bw", "intel-avx512"),
        ("AuthenticAMD", "fpu avx avx2", "amd-avx2"),
        ("AuthenticAMD", "fpu avx", "amd"),
        ("Other", "fpu avx2", "avx2"),
    ],
)
def test_processors_of_another_maker_or_width_are_another_class(vendor, flags, expected):
    assert processor(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n\n") == expected


def test_what_the_system_does_not_tell_is_left_out(tmp_path):
    assert processor("") == ""
    assert gpus(tmp_path) == ""


def test_gpus_are_named_by_their_model(tmp_path):
    for number, model in enumerate(("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3", "NVIDIA A10")):
        folder = tmp_path / f"0000:0{number}:00.0"
        folder.mkdir()
        (folder / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 0\n")
    assert gpus(tmp_path) == "nvidia-a10+nvidia-h100-80gb-hbm3"


def test_the_class_is_in_what_keys_are_made_of():
    assert computed_by()["platform"] == platform_class()
