"""Which networks a pod may use: those of its own namespace and of the namespaces open to all (NPWG
7.4)."""

from __future__ import annotations

from dataclasses import dataclass

from metaplugin.cni.errors import InvalidNetworkConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    enabled: bool = True
    global_namespaces: tuple[str, ...] = ("default",)

    def require(self, *, pod_namespace: str, namespace: str, where: str) -> None:
        """Raise InvalidNetworkConfig unless pods of `pod_namespace` may use networks of
        `namespace`."""
        open_to_pod = namespace == pod_namespace or namespace in self.global_namespaces
        if self.enabled and not open_to_pod:
            raise InvalidNetworkConfig(
                f"{where}: a pod of namespace {pod_namespace!r} may not use networks of namespace "
                f"{namespace!r}",
                details="namespaces open to all pods are named by globalNamespaces in metaplugin's "
                "configuration",
            )
