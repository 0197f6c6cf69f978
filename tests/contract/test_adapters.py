"""Every adapter that listens or performs keeps the promises of its suite."""

import pytest

from convergedon.adapters import discovery
from convergedon.adapters.contract import Intent
from convergedon.adapters.testing import AdapterContract, ObserverContract
from convergedon.core import settings

INTENT = Intent("order-1/pe1", "acme", "pe1", "access", "site-1", {"vlan": 100, "bandwidth": 50}, 2e9)


def made(name: str):
    return discovery.adapters()[name](settings.load(trap_port=0, flow_port=0), {})


class TestLoopback(AdapterContract):
    @pytest.fixture
    def adapter(self):
        return made("loopback")

    @pytest.fixture
    def intent(self):
        return INTENT

    @pytest.fixture
    def impossible(self):
        return Intent("order-2/pe1", "acme", "pe1", "access", "site-2", {"refuse": "no such vlan"}, 2e9)


class TestSnmp(ObserverContract):
    @pytest.fixture
    def adapter(self):
        return made("snmp")


class TestFlow(ObserverContract):
    @pytest.fixture
    def adapter(self):
        return made("flow")


class TestFile(ObserverContract):
    @pytest.fixture
    def adapter(self, tmp_path):
        return discovery.adapters()["file"](settings.load(call_folder=tmp_path), {})
