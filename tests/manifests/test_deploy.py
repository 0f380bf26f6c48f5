"""deploy/ as kustomize renders it: what it says, and a real API server's word on each object."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from deploy.image import NAME
from metaplugin.daemon.config import DeadlinesConfig, load_config
from tests.controlplane.client import APPLY, ApiError, path_of
from tests.controlplane.cluster import Cluster
from tests.manifests.build import RENDERED, everything, render
from tests.manifests.documents import ROOT, StrictLoader, documents

JSONObject = dict[str, Any]

BASE = ROOT / "deploy" / "base"
FOLDERS = [BASE, *sorted((ROOT / "deploy" / "overlays").iterdir())]
STATIC_POD = ROOT / "deploy" / "static-pod" / "metaplugin.yaml"
REFERENCE = ROOT / "deploy" / "README.md"
DRY_RUN = urlencode(
    {"fieldManager": "tests", "force": "true", "fieldValidation": "Strict", "dryRun": "All"}
)
# Where a distribution has folders of its own: of plugins, and of the runtime's configurations.
USUAL = ("/opt/cni/bin", "/etc/cni/net.d")
OWN = {
    "k3s": ("/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d"),
    "microk8s": (
        "/var/snap/microk8s/current/opt/cni/bin",
        "/var/snap/microk8s/current/args/cni-network",
    ),
}


def rendered(folder: Path) -> list[JSONObject]:
    return list(yaml.load_all(render(folder), StrictLoader))


def daemon_set(folder: Path) -> JSONObject:
    [found] = (each for each in rendered(folder) if each["kind"] == "DaemonSet")
    return found


def pod_spec(folder: Path) -> JSONObject:
    spec: JSONObject = daemon_set(folder)["spec"]["template"]["spec"]
    return spec


def containers(spec: JSONObject) -> dict[str, JSONObject]:
    found = {each["name"]: each for each in [*spec["initContainers"], *spec["containers"]]}
    assert set(found) == {"install", "daemon"}
    return found


def own(folder: Path, *texts: str) -> Path:
    """Return a kustomization as one makes it beside a checkout, of these texts."""
    (folder / "metaplugin").symlink_to(ROOT)
    (folder / "kustomization.yaml").write_text("".join(texts))
    return folder


def shown(after: str) -> str:
    """Return the first YAML of the reference after a text."""
    rest = REFERENCE.read_text().partition(after)[2]
    found = re.search(r"^```yaml\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL)
    assert found, f"no YAML after {after!r}"
    return found[1]


def host_paths(spec: JSONObject) -> dict[str, str]:
    return {
        each["name"]: each["hostPath"]["path"] for each in spec["volumes"] if "hostPath" in each
    }


def mounts(container: JSONObject) -> dict[str, tuple[str, bool]]:
    """Return each volume's place in a container, and whether it may be written."""
    return {
        each["name"]: (each["mountPath"], not each.get("readOnly", False))
        for each in container["volumeMounts"]
    }


def named(path: Path) -> str:
    return path.name


by_folder = pytest.mark.parametrize("folder", FOLDERS, ids=named)
by_spec = pytest.mark.parametrize(
    "spec",
    [*(pod_spec(folder) for folder in FOLDERS), documents(STATIC_POD)[0]["spec"]],
    ids=[*(folder.name for folder in FOLDERS), "static-pod"],
)


def test_the_single_file_is_what_the_base_renders() -> None:
    assert RENDERED.read_text() == everything(), "run `make manifests`"


def test_whoever_deletes_by_the_single_file_deletes_nobodys_networks() -> None:
    """With a CustomResourceDefinition go all objects of it, Multus's users' as well."""
    assert "CustomResourceDefinition" not in {each["kind"] for each in documents(RENDERED)}


@by_spec
def test_no_container_is_privileged_or_may_write_its_root(spec: JSONObject) -> None:
    """Multus's pain C19: one capability, single folders of the host, nothing of its processes."""
    for name, container in containers(spec).items():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]}
            | ({"add": ["NET_ADMIN"]} if name == "daemon" else {}),
            "privileged": False,
            "readOnlyRootFilesystem": True,
        }
    assert spec["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "seccompProfile": {"type": "RuntimeDefault"},
        "seLinuxOptions": {"type": "spc_t"},
    }
    assert not {"hostPID", "hostIPC", "shareProcessNamespace"} & set(spec)
    assert spec["hostNetwork"] is True


@by_spec
def test_each_folder_of_the_host_is_one_that_is_needed(spec: JSONObject) -> None:
    of_host = host_paths(spec)
    assert set(of_host) == {
        *("bin", "networks", "own", "run", "state", "runtime"),
        *("pod-resources", "device-plugins", "device-info"),
    }
    for place in of_host.values():
        assert len(Path(place).parts) > 2, f"{place} holds more than what is ours"
    installer, daemon = containers(spec)["install"], containers(spec)["daemon"]
    for name, (place, writable) in mounts(installer).items():
        if name in of_host:
            assert (place, writable) == (f"/host{of_host[name]}", name != "networks")
    assert {name for name, (_, writable) in mounts(daemon).items() if writable} == {
        "tmp",
        "networks",
        "run",
        "state",
        "device-info",
    }
    assert "bin" not in mounts(daemon)
    for name in ("networks", "own", "run", "state", "runtime", "device-info"):
        assert mounts(daemon)[name][0] == of_host[name], "daemon.yaml means the host's paths"
    for container in (installer, daemon):
        assert set(mounts(container)) <= {volume["name"] for volume in spec["volumes"]}


@by_folder
def test_a_distributions_folders_are_its_own(folder: Path) -> None:
    plugins, configurations = OWN.get(folder.name, USUAL)
    spec = pod_spec(folder)
    assert host_paths(spec)["bin"] == plugins
    assert host_paths(spec)["networks"] == configurations
    environment = {each["name"]: each.get("value") for each in containers(spec)["install"]["env"]}
    assert environment["METAPLUGIN_BIN_DIR"] == plugins
    [config] = (each for each in rendered(folder) if each["kind"] == "ConfigMap")
    said = yaml.load(config["data"]["daemon.yaml"], StrictLoader)
    assert said["installation"].get("cniConfDir", USUAL[1]) == configurations


@by_folder
def test_its_file_is_one_that_the_daemon_takes(folder: Path, tmp_path: Path) -> None:
    [config] = (each for each in rendered(folder) if each["kind"] == "ConfigMap")
    (tmp_path / "daemon.yaml").write_text(config["data"]["daemon.yaml"])
    taken = load_config(tmp_path / "daemon.yaml")
    assert taken.kubernetes is not None
    assert taken.installation is not None


@by_folder
def test_pods_of_every_node_can_have_their_networks(folder: Path) -> None:
    spec = pod_spec(folder)
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert daemon_set(folder)["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 1},
    }


@by_spec
def test_what_is_under_way_can_end(spec: JSONObject) -> None:
    drain = DeadlinesConfig().drain_seconds
    assert drain < spec["terminationGracePeriodSeconds"] < drain + 30


@by_spec
def test_memory_is_bounded_and_the_processor_is_not(spec: JSONObject) -> None:
    for container in containers(spec).values():
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert set(container["resources"]["limits"]) == {"memory"}


@by_spec
def test_the_image_is_the_one_of_this_version(spec: JSONObject) -> None:
    for container in containers(spec).values():
        assert container["image"] == NAME
        assert container["imagePullPolicy"] in ("IfNotPresent", "Never")


def test_the_static_pod_is_the_daemon_sets_without_what_only_an_api_server_gives() -> None:
    static, daemons = documents(STATIC_POD)[0]["spec"], pod_spec(BASE)
    assert static.pop("priority") == 2000001000  # of system-node-critical
    for key in ("serviceAccountName", "automountServiceAccountToken", "tolerations"):
        del daemons[key]
    del daemons["nodeSelector"]
    [config] = (each for each in daemons["volumes"] if each["name"] == "config")
    daemons["volumes"].remove(config)
    for container in containers(daemons).values():
        container["volumeMounts"] = [
            each for each in container["volumeMounts"] if each["name"] != "config"
        ]
    [own] = (each for each in daemons["volumes"] if each["name"] == "own")
    own["hostPath"]["type"] = "Directory"  # what an operator has put there
    containers(daemons)["install"]["args"] = ["install", "--no-runtime", "--root", "/host"]
    containers(daemons)["daemon"]["args"] = [
        "daemon",
        "--config",
        "/etc/cni/metaplugin/daemon.yaml",
    ]
    assert static == daemons


def test_where_the_static_pod_is_the_daemon_set_is_not(tmp_path: Path) -> None:
    component = "components: [metaplugin/deploy/components/workers-only]\n"
    spec = pod_spec(own(tmp_path, "resources: [metaplugin/deploy/base]\n", component))
    absent = {"key": "node-role.kubernetes.io/control-plane", "operator": "DoesNotExist"}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [absent]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
    assert spec.pop("affinity") == {"nodeAffinity": required}
    assert spec == pod_spec(BASE)


def test_values_of_ones_own_go_where_the_reference_says(tmp_path: Path) -> None:
    """The kustomization and the patches of deploy/README.md, to the letter."""
    (tmp_path / "daemon.yaml").write_text("kubernetes: {}\nlogLevel: debug\n")
    texts = (shown("**Your own values**"), shown("**The API server's address.**"))
    folder = own(tmp_path, *texts)
    objects = {each["kind"]: each for each in rendered(folder)}
    spec, config = pod_spec(folder), objects["ConfigMap"]
    tag = NAME.rpartition(":")[2]
    for container in containers(spec).values():
        assert container["image"] == f"registry.example.com/metaplugin:{tag}"
    said = {each["name"]: each.get("value") for each in containers(spec)["daemon"]["env"]}
    assert said["KUBERNETES_SERVICE_HOST"] == "api.example.com"
    assert said["KUBERNETES_SERVICE_PORT"] == "6443"
    assert config["data"] == {"daemon.yaml": "kubernetes: {}\nlogLevel: debug\n"}
    assert config["metadata"]["name"] in json.dumps(spec["volumes"])


@pytest.mark.system
@by_folder
def test_a_real_api_server_takes_every_object(cluster: Cluster, folder: Path) -> None:
    """Server-side apply, unknown and doubled fields refused, nothing stored."""
    for document in rendered(folder):
        path = f"{path_of(document)}?{DRY_RUN}"
        answer = cluster.admin.request("PATCH", path, document, content_type=APPLY)
        assert answer["metadata"]["name"] == document["metadata"]["name"]


@pytest.mark.system
def test_a_real_api_server_takes_the_static_pod(cluster: Cluster) -> None:
    [pod] = documents(STATIC_POD)
    cluster.admin.request("PATCH", f"{path_of(pod)}?{DRY_RUN}", pod, content_type=APPLY)


@pytest.mark.system
def test_what_it_needs_beyond_the_baseline_is_what_security_md_says(cluster: Cluster) -> None:
    """Pod Security: kube-system has no level by default; elsewhere `privileged` is the one."""
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": "baseline",
            "labels": {"pod-security.kubernetes.io/enforce": "baseline"},
        },
    }
    cluster.admin.create(namespace)
    pod: JSONObject = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "baseline"},
        "spec": pod_spec(BASE) | {"serviceAccountName": "default"},
    }
    del pod["spec"]["priorityClassName"]
    with pytest.raises(ApiError) as caught:
        cluster.admin.request("PATCH", f"{path_of(pod)}?{DRY_RUN}", pod, content_type=APPLY)
    message = caught.value.text.partition('baseline:latest\\": ')[2].partition('","reason"')[0]
    kinds = {part.strip().partition(" (")[0] for part in message.split("),")}
    assert kinds == {
        "non-default capabilities",
        "host namespaces",
        "hostPath volumes",
        "probe or lifecycle host",
        "seLinuxOptions",
    }, caught.value.text
    cluster.admin.delete("/api/v1/namespaces/baseline")
