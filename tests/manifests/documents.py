"""Kubernetes manifests read as the API server reads them with strict validation."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
DEVICE_EXAMPLES = sorted((ROOT / "examples" / "devices").glob("*.yaml"))
CRDS = sorted((ROOT / "crds").glob("*.yaml"))
RBAC = ROOT / "deploy" / "base" / "rbac.yaml"
DEPLOY = [*sorted((ROOT / "deploy").glob("*.yaml")), RBAC, RBAC.with_name("policy.yaml")]
OPT_IN = sorted((ROOT / "deploy" / "opt-in").glob("*.yaml"))


class StrictLoader(yaml.SafeLoader):
    """PyYAML lets the last of two equal keys win; here they are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key twice: {keys} {node.start_mark}"
        return super().construct_mapping(node, deep)


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.load_all(path.read_text(), StrictLoader))


def granted() -> set[tuple[str, str, str]]:
    """Return what deploy/base/rbac.yaml allows: verb, API group, resource."""
    return {
        call
        for document in documents(RBAC)
        for rule in document.get("rules", ())
        for call in product(rule["verbs"], rule["apiGroups"], rule["resources"])
    }
