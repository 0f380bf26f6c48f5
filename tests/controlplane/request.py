"""A request as RBAC sees it: verb, API group, resource. The proxy counts by it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Request:
    """What was asked. `group` and `resource` are empty where no resource is (`/readyz`)."""

    method: str
    target: str
    at: float = 0.0  # time.monotonic() of its arrival

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {key: values[-1] for key, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def verb(self) -> str:
        if self.method != "GET":
            return _VERBS.get(self.method, self.method.lower())
        if self.query.get("watch", "") in {"1", "true"}:
            return "watch"
        return "get" if self.name or not self.resource else "list"

    @property
    def group(self) -> str:
        parts = self.path.strip("/").split("/")
        return parts[1] if parts[0] == "apis" and len(parts) > 1 else ""

    @property
    def resource(self) -> str:
        """The plural, with `/` and the subresource if there is one."""
        parts = self._resource_parts
        return "/".join([parts[0], *parts[2:]]) if parts else ""

    @property
    def name(self) -> str:
        return self._resource_parts[1] if len(self._resource_parts) > 1 else ""

    @property
    def _resource_parts(self) -> list[str]:
        """Plural, name and subresource, as far as the path goes."""
        parts = self.path.strip("/").split("/")
        if parts[0] not in {"api", "apis"}:
            return []
        rest = parts[2 if parts[0] == "api" else 3 :]
        return rest[2:] if rest[:1] == ["namespaces"] and len(rest) > 2 else rest
