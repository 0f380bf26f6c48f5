"""The Kubernetes API: what is watched, what is asked for once, what is written back."""
