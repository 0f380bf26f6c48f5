"""The NPWG multi-network standard 1.3 as pure code: annotations, definitions, status, device
info."""
