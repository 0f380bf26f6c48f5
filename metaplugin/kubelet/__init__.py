"""The kubelet of this node: which devices it has given to a pod."""
