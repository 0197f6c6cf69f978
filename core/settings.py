"""Every setting, in one typed place. An environment variable is CONVERGEDON_ and the name in capitals."""

from __future__ import annotations

import os
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from convergedon.core.errors import Misconfigured


class SecretFiles(PydanticBaseSettingsSource):
    """Secrets in files: CONVERGEDON_X_FILE names the one that holds CONVERGEDON_X, which goes before it."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Raises Misconfigured for a file that cannot be read."""
        variable = f"CONVERGEDON_{field_name.upper()}_FILE"
        named = os.environ.get(variable) if field.annotation is SecretStr else None
        if not named:
            return None, field_name, False
        try:
            return Path(named).read_text(encoding="utf-8").strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise Misconfigured(f"setting {variable}: {named} cannot be read: {reason}") from None

    def __call__(self) -> dict[str, Any]:
        found = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in found.items() if value is not None}


class Settings(BaseSettings):
    """What can be set; each field's description is the documentation, README's table is compared with it."""

    model_config = SettingsConfigDict(env_prefix="CONVERGEDON_", extra="ignore", frozen=True)

    data: Path = Field(
        Path("convergedon-data"), description="Folder for everything `up` keeps: store, bus, keys, logs."
    )
    host: str = Field("127.0.0.1", description="Address the gateway listens on.")
    port: int = Field(8080, ge=0, le=65535, description="Port the gateway listens on; 0 takes a free one.")
    public_url: str = Field(
        "", description="URL under which clients reach the gateway, used in href; empty: from the request."
    )
    proxies: str = Field(
        "127.0.0.1",
        description="Reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, comma-separated; "
        "addresses or networks.",
    )
    tls_cert: Path | None = Field(None, description="Certificate chain (PEM) by which the gateway serves https alone.")
    tls_key: Path | None = Field(None, description="Key of that certificate, if it is in another file.")
    tls_client_ca: Path | None = Field(
        None, description="Authorities of clients' certificates; set: who shows none is not let in."
    )
    connections: int = Field(512, ge=1, description="Connections that one gateway process takes at once.")
    metrics_token: SecretStr = Field(
        SecretStr(""), description="Bearer token for /metrics; empty: it is read on this machine alone."
    )
    mongodb_url: SecretStr = Field(SecretStr(""), description="MongoDB to use; empty: the embedded store.")
    mongodb_ca: Path | None = Field(
        None, description="Authorities of MongoDB's certificate; set: it is reached by TLS alone."
    )
    mongodb_cert: Path | None = Field(None, description="Certificate and key, in one file, that MongoDB is shown.")
    database: str = Field("convergedon", description="Name of the database in MongoDB.")
    nats_url: SecretStr = Field(
        SecretStr(""), description="NATS servers to use, comma-separated; empty: the embedded one."
    )
    nats_ca: Path | None = Field(
        None, description="Authorities of the NATS servers' certificates; set: they are reached by TLS alone."
    )
    nats_cert: Path | None = Field(None, description="Certificate that NATS servers are shown.")
    nats_key: Path | None = Field(None, description="Key of that certificate, if it is in another file.")
    nats_creds: Path | None = Field(None, description="Credentials file for NATS (.creds: a user's JWT and seed).")
    nats_seed: Path | None = Field(None, description="File with the seed of a user's NKey for NATS.")
    opa_url: str = Field("", description="Open Policy Agent server to ask; empty: the Rego engine in the process.")
    opa_ca: Path | None = Field(None, description="Authorities of that server's certificate; empty: the system's.")
    opa_token: SecretStr = Field(SecretStr(""), description="Bearer token that the Open Policy Agent server is shown.")
    policies: Path | None = Field(None, description="Folder of Rego policies instead of the ones that ship.")
    devices: Path | None = Field(None, description="YAML file of devices, their tenants and how to reach them.")
    mappings: Path | None = Field(
        None, description="Folder of mapping files that replace those that ship: netconf.yaml, snmp.yaml, file.yaml."
    )
    products: Path | None = Field(None, description="YAML product model instead of the one that ships.")
    workflows: Path | None = Field(
        None, description="Folder of the workflows that alarms begin, docs/workflows.md; empty: none."
    )
    workflow_secrets: Path | None = Field(
        None, description="YAML file that says where the secrets are kept by which workflows call web services."
    )
    notifications: Path | None = Field(
        None,
        description="YAML rules of when and how customers are told, docs/notifications.md; empty: at once, by hub "
        "events alone.",
    )
    tariff: Path | None = Field(None, description="YAML tariff instead of the one that ships.")
    metering: Path | None = Field(
        None, description="YAML rules of how records are added up to usage instead of the ones that ship."
    )
    tenant: str = Field("acme", description="Tenant of devices that the devices file does not name.")
    issuer: str = Field(
        "",
        description="OAuth2 issuer of bearer tokens, several comma-separated; empty: the local development issuer.",
    )
    jwks_url: str = Field(
        "", description="URL of the issuer's keys (one for each issuer); empty: as its discovery document says."
    )
    jwks_ca: Path | None = Field(None, description="Authorities of the issuer's certificate; empty: the system's.")
    audience: str = Field("convergedon", description="Audience that a bearer token must name.")
    clients: Path | None = Field(
        None, description="YAML file of the issuer's clients, their tenants, roles and parties; empty: as tokens say."
    )
    trap_host: str = Field("127.0.0.1", description="Address the SNMP adapter listens on.")
    trap_port: int = Field(1162, ge=0, le=65535, description="UDP port for SNMP traps and informs; 0 takes a free one.")
    trap_communities: SecretStr = Field(
        SecretStr("public"), description="Communities accepted in traps, comma-separated."
    )
    trap_storm_high: int = Field(
        1_000, ge=0, description="Traps of one kind from one device in ten seconds that begin a storm; 0: none is one."
    )
    trap_storm_low: int = Field(100, ge=0, description="Traps of that kind in ten seconds at which the storm is over.")
    flap_clears: int = Field(
        4, ge=0, description="Clears of one condition within the window that make it one flapping alarm; 0: none flaps."
    )
    flap_window: float = Field(300, gt=0, description="Seconds within which those clears are counted.")
    flap_quiet: float = Field(120, gt=0, description="Seconds without a turn after which an alarm flaps no more.")
    call_home_host: str = Field("127.0.0.1", description="Address on which NETCONF devices call home.")
    call_home_port: int = Field(
        4334, ge=0, le=65535, description="TCP port of it, listened on where a device has callHome; 0 takes a free one."
    )
    flow_host: str = Field("127.0.0.1", description="Address the flow adapter listens on.")
    flow_port: int = Field(2055, ge=0, le=65535, description="UDP port for NetFlow and IPFIX; 0 takes a free one.")
    call_folder: Path | None = Field(
        None, description="Folder in which files of call records are dropped; empty: `calls` in the data folder."
    )
    callback_networks: Annotated[list[IPv4Network | IPv6Network], NoDecode] = Field(
        default_factory=list,
        description="Loopback or private networks that hub callbacks may be on, comma-separated; public addresses may.",
    )
    hub_key: SecretStr = Field(
        SecretStr(""),
        description="Key that the secrets of hub listeners follow from, the same for all gateways and workers, 32 "
        "characters or more; several by comma: the first for new listeners. Empty: one kept in the data folder.",
    )
    audit_key: SecretStr = Field(
        SecretStr(""),
        description="Key of the hashes that stand in audit records for questions, the same for all "
        "processes, 32 characters or more. Empty: one kept in the data folder.",
    )
    intent_key: SecretStr = Field(
        SecretStr(""),
        description="Key that seals what devices are asked for, the same for all workers and adapters, 32 characters "
        "or more; several by comma: the first seals. Empty: one that follows from the audit key.",
    )
    decision_age: float = Field(
        604_800, ge=3_600, description="Seconds for which policy decisions are kept with their questions."
    )
    decision_bytes: int = Field(
        2_147_483_648, ge=1_048_576, description="Bytes that kept decisions may have; the oldest go first."
    )
    metered_bytes: int = Field(
        1_073_741_824,
        ge=1_048_576,
        description="Bytes that what is added up for open intervals may have; from three quarters of it on they are "
        "closed before their time.",
    )
    parked_bytes: int = Field(
        1_073_741_824,
        ge=1_048_576,
        description="Bytes that parked messages may have; from half of it on `/readyz` says so. None goes for another.",
    )
    audit_signing_key_file: Path | None = Field(
        None,
        description="File of the Ed25519 key (PEM) that signs audit checkpoints, the same for all workers; empty: one "
        "kept in the data folder.",
    )
    audit_anchor_file: Path | None = Field(
        None, description="File to which each audit checkpoint is appended, too, best where it cannot be rewritten."
    )
    delivery_horizon: float = Field(86_400, gt=0, description="Seconds after which an undeliverable event is parked.")
    retry_horizon: float = Field(3_600, gt=0, description="Seconds after which work that keeps failing is parked.")
    intent_deadline: float = Field(300, gt=0, description="Seconds a device has to reach the state an order asks for.")
    repair_patience: float = Field(
        3_600,
        ge=0,
        description="Seconds for which a repair waits for a device that is away, or that another has; 0: it does not.",
    )
    confirm_timeout: int = Field(30, ge=2, description="Seconds after which a device undoes an unconfirmed commit.")
    body_limit: int = Field(1_048_576, ge=1024, description="Bytes a request body may have.")
    survey_days: float = Field(
        14, ge=0, le=365, description="Days for which customers can answer the survey in a message; 0: none is asked."
    )
    telling_days: float = Field(
        30,
        ge=8,
        le=3_650,
        description="Days for which it is kept what customers know of problems that are over, and what became of each "
        "letter, docs/notifications.md; longer than events are.",
    )
    list_limit: int = Field(10_000, ge=1, description="Elements that one list may have; longer ones come in pages.")
    rate_limit: float = Field(
        0, ge=0, description="Requests a second of one caller that one gateway process takes; 0: any number."
    )
    failure_limit: float = Field(
        5,
        ge=0,
        description="Bad bearer tokens, and survey links, a second that are taken from one address; 0: any number.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    otlp_endpoint: str = Field("", description="OpenTelemetry collector to send spans to; empty: none are sent.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, SecretFiles(settings_cls)

    @field_validator("callback_networks", mode="before")
    @classmethod
    def _networks(cls, given: object) -> object:
        """A list, or text: separated by commas, or as JSON."""
        if not isinstance(given, str):
            return given
        return [part.strip().strip("\"'") for part in given.strip().strip("[]").split(",") if part.strip()]

    @field_validator("hub_key", "audit_key", "intent_key")
    @classmethod
    def _long(cls, given: SecretStr) -> SecretStr:
        if any(len(key.strip()) < 32 for key in given.get_secret_value().split(",") if given.get_secret_value()):
            raise ValueError("a key has 32 characters or more")
        return given

    @property
    def url(self) -> str:
        """Where clients reach the gateway, without a slash at the end."""
        found = (self.public_url or address(self.host, self.port)).rstrip("/")
        return found if "://" in found else f"{self.scheme}://{found}"

    @property
    def scheme(self) -> str:
        return "https" if self.tls_cert else "http"

    @cached_property
    def communities(self) -> frozenset[bytes]:
        return frozenset(name.strip().encode() for name in self.trap_communities.get_secret_value().split(","))


def address(host: str, port: int) -> str:
    """A place in a URL; an IPv6 address has brackets there."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def load(**given: object) -> Settings:
    """Read the settings; what is given here wins over the environment.

    Raises Misconfigured with one sentence that names the setting but never its value (it may be a secret).
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        raise Misconfigured(
            f"setting CONVERGEDON_{name.upper()}: {first['msg'].removeprefix('Value error, ')}"
        ) from None
