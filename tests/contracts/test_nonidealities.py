"""The contract of nonidealities over every one that calib finds."""

import pytest
import xarray as xr

from calib import nonidealities
from calib.errors import OptionError
from tests.contracts.nonideality_contract import NonidealityContract
from tests.simple_devices import everything, range_only

NAMES = nonidealities.names()


@pytest.mark.parametrize("member", [nonidealities.nonideality(name) for name in NAMES], ids=NAMES, scope="class")
class TestNonidealities(NonidealityContract):
    """Every member of the family."""

    @pytest.fixture
    def tree(self) -> xr.DataTree:
        return everything()

    @pytest.fixture
    def bare(self) -> xr.DataTree:
        return range_only()


def test_members_are_found_by_file() -> None:
    assert {"iv", "lognormal", "stuck"} <= set(NAMES)


def test_an_unknown_nonideality_is_refused() -> None:
    with pytest.raises(OptionError, match="no 'retention-2' in nonidealities; found: iv, lognormal, stuck"):
        nonidealities.nonideality("retention-2")


def test_one_member_a_stage() -> None:
    found = nonidealities.from_device(everything())
    assert [member.name for member in found] == ["lognormal", "stuck", "iv"]
    with pytest.raises(OptionError, match="'stuck' and 'stuck' both act at the stage 'stuck'"):
        nonidealities.order([*found, found[1]])
