"""What is counted and timed, in one place, so that a dashboard's author finds every name here."""

from collections.abc import Mapping

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

REQUESTS = Counter("convergedon_http_requests_total", "API calls answered.", ["api", "operation", "status"])
REQUEST_SECONDS = Histogram("convergedon_http_request_seconds", "Time to answer an API call.", ["api", "operation"])
DECISIONS = Counter("convergedon_policy_decisions_total", "Policy decisions.", ["channel", "allow"])
LOGGED = Counter("convergedon_policy_decisions_logged_total", "Policy decisions stored with their questions.")
UNLOGGED = Counter(
    "convergedon_policy_decisions_dropped_total", "Policy decisions that the log could not take, by reason.", ["reason"]
)
RELAYED = Counter("convergedon_outbox_relayed_total", "Messages published from the outbox.", ["stream"])
CONSUMED = Counter("convergedon_messages_total", "Messages taken from the bus.", ["stream", "result"])
AUDIT_LOST = Counter("convergedon_audit_lost_total", "Records that found no place while store or bus were away.")
PARKED = Counter("convergedon_parked_total", "Messages parked with a reason.", ["stream"])
UNPARKED = Counter(
    "convergedon_parked_refused_total", "Times a message found no room to be parked in, and came back.", ["stream"]
)
PARKED_BYTES = Gauge(
    "convergedon_parked_bytes", "Bytes of the messages that are parked.", multiprocess_mode="livemostrecent"
)
PARKED_MOST = Gauge("convergedon_parked_bytes_limit", "Bytes that they may have.", multiprocess_mode="livemostrecent")
DELIVERIES = Counter("convergedon_deliveries_total", "Events posted to hub listeners.", ["result"])
DELIVERY_SECONDS = Histogram(
    "convergedon_delivery_seconds",
    "Time from the queue of a hub listener until it took an event.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60, 600, 3600, 86_400),
)
WAITING = Gauge(
    "convergedon_deliveries_waiting", "Events in the queues of hub listeners.", multiprocess_mode="livemostrecent"
)
LETTERS = Counter("convergedon_letters_total", "Notifications sent through channels, by result.", ["channel", "result"])
STEP_SECONDS = Histogram("convergedon_flow_step_seconds", "Time of one flow step.", ["step"])
RECEIVED = Counter("convergedon_adapter_received_total", "Datagrams, notifications or records received.", ["adapter"])
DECODED = Counter("convergedon_adapter_decoded_total", "Of these understood.", ["adapter"])
DROPPED = Counter("convergedon_adapter_dropped_total", "Of these dropped, by reason.", ["adapter", "reason"])
OBSERVED = Counter("convergedon_adapter_observations_total", "Observations made safe.", ["adapter", "kind"])
GAPS = Counter(
    "convergedon_adapter_gaps_total", "Times a device could not tell again what nobody had listened to.", ["adapter"]
)
UNMAPPED = Counter(
    "convergedon_adapter_unmapped_total",
    "Datagrams, notifications and files that no mapping or device fits.",
    ["adapter"],
)
RELOADS = Counter(
    "convergedon_adapter_reloads_total", "Times devices and mapping were read again.", ["adapter", "result"]
)
PERFORMED = Counter("convergedon_adapter_intents_total", "Intents performed.", ["adapter", "status"])
FORGED = Counter(
    "convergedon_adapter_intents_forged_total", "Intents parked because their seal does not hold.", ["adapter"]
)
RPC_SECONDS = Histogram("convergedon_adapter_rpc_seconds", "Time of one call to a device.", ["adapter", "rpc"])
MISDATED = Counter(
    "convergedon_usage_records_misdated_total",
    "Records whose time cannot be right, taken for that of their receipt.",
    ["type"],
)
CORRECTIONS = Counter(
    "convergedon_usage_corrections_total", "Usages made of what came when its interval was closed.", ["type"]
)
REPEATED = Counter("convergedon_usage_observations_repeated_total", "Observations that came again: counted once.")
UNASSIGNED = Counter("convergedon_flow_records_unassigned_total", "Flow records whose addresses belong to no service.")
QUEUE = Gauge(
    "convergedon_adapter_queue",
    "Datagrams, notifications or files waiting to be made safe.",
    ["adapter"],
    multiprocess_mode="livesum",
)


def of_adapter(name: str) -> Mapping[str, float]:
    """What this process has counted and timed of an adapter, by name and labels; of a histogram count and sum."""
    return {
        ",".join(
            [sample.name, *(f"{label}={value}" for label, value in sample.labels.items() if label != "adapter")]
        ): (sample.value)
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.labels.get("adapter") == name and not sample.name.endswith(("_bucket", "_created"))
    }
