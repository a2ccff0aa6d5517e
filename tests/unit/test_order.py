"""The order in which `make test` takes its files."""

from tests.conftest import ROOT
from tests.order import LONGEST, SHARED, missing


def test_every_file_that_is_named_is_there_and_in_one_group():
    assert missing(ROOT) == []
    grouped = [file for group in SHARED for file in group]
    assert len(grouped) == len(set(grouped))
    assert {group[0] for group in SHARED} <= set(LONGEST), "a group stands where its first file does"
    assert not {file for group in SHARED for file in group[1:]} & set(LONGEST)
