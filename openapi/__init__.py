"""Our OpenAPI documents, one for each API version."""
