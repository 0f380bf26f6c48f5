"""The bytes between shim and daemon, and those of a record on disk.

Pure: it turns values into bytes and back. `frames` is the protocol, `container` the record's file;
the shim implements the same two in C.
"""
