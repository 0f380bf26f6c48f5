"""What the node's operator lets net-attach-defs hold: they are run as root for whoever may write
them.

Go's decoder takes keys in any case, so all keys are compared without it. Configurations on the
node's disk are the operator's own and not looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from metaplugin.cni.configuration import NetworkConfigList
from metaplugin.cni.errors import InvalidNetworkConfig

OTHER_NAMESPACES = "*"
_DELEGATING = ("ipam", "delegate", "delegates", "plugins")  # keys under which plugins name plugins


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`allowed_plugins` are plugin types by namespace, "*" standing for all that aren't named;
    without one these may use all. `denied_keys` are denied at any depth."""

    allowed_plugins: Mapping[str, Collection[str]] = field(default_factory=dict)
    denied_keys: Collection[str] = ()

    def require(self, config: NetworkConfigList, *, namespace: str, where: str) -> None:
        """Raise InvalidNetworkConfig unless a net-attach-def of that namespace may hold this."""
        for position, plugin in enumerate(config.plugins):
            place = f"plugins[{position}]"
            self._require_types(plugin.raw, namespace=namespace, where=where, place=place)
            self.require_keys(plugin.raw, where=f"{where}: {place}")

    def require_keys(self, value: Any, *, where: str) -> None:
        """Raise InvalidNetworkConfig where a denied key is anywhere in a value."""
        if not self.denied_keys:
            return
        denied = {key.casefold() for key in self.denied_keys}
        for place in _places(value, denied, where):
            raise InvalidNetworkConfig(
                f"{place}: this key is denied on this node",
                details="policy.deniedKeys in metaplugin's configuration denies it: remove the key,"
                " or have the configuration put on the node's disk by its operator",
            )

    def _require_types(self, raw: Any, *, namespace: str, where: str, place: str) -> None:
        allowed = self.allowed_plugins.get(namespace, self.allowed_plugins.get(OTHER_NAMESPACES))
        if allowed is None:
            return
        for found, kind in _types(raw, place):
            if kind not in allowed:
                raise InvalidNetworkConfig(
                    f"{where}: {found}: net-attach-defs of namespace {namespace!r} may not use "
                    f"plugin {kind!r}",
                    details=f"allowed are {', '.join(sorted(allowed)) or 'none'}: "
                    "policy.allowedPlugins in metaplugin's configuration",
                )


def _types(raw: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield each plugin type that a plugin's configuration names, with its place."""
    for key, value in raw.items() if isinstance(raw, dict) else ():
        here = f"{place}.{key}"
        if key.casefold() == "type":
            yield here, str(value)
        elif key.casefold() in _DELEGATING:
            inner = value if isinstance(value, list) else [value]
            for position, item in enumerate(inner):
                yield from _types(item, f"{here}[{position}]" if inner is value else here)


def _places(value: Any, denied: Collection[str], where: str) -> Iterator[str]:
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from _places(item, denied, f"{where}[{position}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            here = f"{where}.{key}"
            if key.casefold() in denied:
                yield here
            yield from _places(item, denied, here)
