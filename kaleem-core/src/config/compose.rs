//! Compose files: read as they are, resolved as Compose resolves them.
