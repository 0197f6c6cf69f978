"""What went over interfaces becomes usage of the services that stand on them, where records of flows are not to be had.

A device's view is turned round: what comes in at an interface is what its customer sent.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from convergedon.adapters.contract import Observation
from convergedon.core.bus import Message
from convergedon.mediation import inventory, metering
from convergedon.mediation.intervals import TRAFFIC
from convergedon.mediation.work import Work

INTERFACE_TRAFFIC = "interface-traffic"
TURNED = {"octetsIn": "octetsUp", "octetsOut": "octetsDown", "packetsIn": "packetsUp", "packetsOut": "packetsDown"}


async def count(work: Work, message: Message) -> None:
    """Counters of one poll: each service on an interface is counted what went over it, as a record of that service."""
    seen = Observation(**message.body["observation"])
    records = []
    for each in seen.attributes["records"]:
        for service in await inventory.on(work.store, seen.tenant, seen.device, each["interface"]):
            records.append(
                {
                    "id": f"{seen.id}|{each['interface']}|{service.id}",
                    "service": service.id,
                    "start": each["start"],
                    "end": each["end"],
                    "counts": {TURNED[name]: count for name, count in each["counts"].items()},
                    "texts": {"interface": each["interface"]},
                }
            )
    about = {"usageType": INTERFACE_TRAFFIC, "names": TRAFFIC, "records": records}
    await metering.take(work, replace(message, body={"observation": asdict(replace(seen, attributes=about))}))
