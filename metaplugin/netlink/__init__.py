"""The inside of a pod's network namespace, by a netlink socket that the shim opened there."""
