"""Files in place of services: manifests as the cluster, configurations on the node's disk."""
