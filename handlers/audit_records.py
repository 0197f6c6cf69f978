"""The audit record, our extension: read by auditors, written by nobody over REST."""

from __future__ import annotations

from convergedon.core import audit
from convergedon.handlers.resource import Api, Resource

AUDIT_RECORD = Resource(audit.KIND.name, "AuditRecord", indexes=audit.KIND.indexes, told_of_persons=True)

API = Api("audit-v1", "/convergedon-api/audit/v1", (AUDIT_RECORD,), words={AUDIT_RECORD.name: "auditRecord"})
