"""Mapping files of the operator's own stand in for those that ship, by their names."""

from pathlib import Path

import pytest

from convergedon.adapters import netconf, snmp
from convergedon.core import settings, strict
from convergedon.core.errors import Misconfigured

CREATES = {"netconf.yaml": netconf.create, "snmp.yaml": snmp.create}
SHIPPED = Path("shipped.yaml")


def test_a_file_of_the_operators_own_replaces_the_one_that_ships(tmp_path: Path) -> None:
    """Only those in the folder: the others stay as they ship."""
    (tmp_path / "snmp.yaml").touch()

    assert strict.mapping_file(tmp_path, "snmp.yaml", SHIPPED) == tmp_path / "snmp.yaml"
    assert strict.mapping_file(tmp_path, "netconf.yaml", SHIPPED) is SHIPPED
    assert strict.mapping_file(None, "snmp.yaml", SHIPPED) is SHIPPED


@pytest.mark.parametrize("name", CREATES)
def test_an_adapter_reads_its_file_in_the_folder(tmp_path: Path, name: str) -> None:
    """What is wrong in it is said with its path at the start; without the file the adapter starts."""
    given = settings.load(mappings=tmp_path)
    CREATES[name](given, {})
    (tmp_path / name).write_text("surprise: 1\n")

    with pytest.raises(Misconfigured) as refused:
        CREATES[name](given, {})

    assert str(refused.value).startswith(f"{tmp_path / name}, line 1: ")


@pytest.mark.parametrize("name", CREATES)
def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    """A slip in its path must not mean the mapping that ships."""
    with pytest.raises(Misconfigured, match=r"absent: there is no such folder .*CONVERGEDON_MAPPINGS"):
        CREATES[name](settings.load(mappings=tmp_path / "absent"), {})
