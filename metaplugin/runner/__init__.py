"""Running delegates through the shim that the runtime started."""
