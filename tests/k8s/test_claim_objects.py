"""What is kept of DRA's objects, also of odd ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaplugin.k8s.claim_objects import (
    claim_path,
    slices_path,
    slim_claim,
    slim_pod_claims,
    slim_slices,
)
from metaplugin.k8s.cluster import Unanswered

SLIMMERS: list[Callable[[dict[str, Any]], object]] = [slim_claim, slim_pod_claims, slim_slices]
KEYS = ["status", "spec", "items", "devices", "results", "allocation", "pool", "name", "uid"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)


def test_an_extended_resource_that_dra_gives_is_known_by_container_and_request() -> None:
    """KEP-5004: the container asks for `vendor.example/vf`, and the scheduler makes the claim."""
    mapping = {"containerName": "c", "resourceName": "vendor.example/vf", "requestName": "r0"}
    status = {"resourceClaimName": "p-extended", "requestMappings": [mapping]}
    found = slim_pod_claims(
        {"metadata": {"uid": "u"}, "status": {"extendedResourceClaimStatus": status}}
    )
    assert found.extended_resources == {("p-extended", "c", "r0"): "vendor.example/vf"}


def test_a_claim_that_is_not_allocated_has_no_devices() -> None:
    assert slim_claim({"spec": {}, "status": {}}).results == {}


@pytest.mark.parametrize("order", [(True, None), (None, True), (True, True)])
def test_a_device_to_look_after_is_told_from_one_to_use(order: tuple[bool | None, ...]) -> None:
    """adminAccess: of two results for one device, the one that lets the pod use it counts."""
    device = {"driver": "d", "pool": "p", "device": "0", "request": "r"}
    results = [device | {"adminAccess": admin} for admin in order]
    found = slim_claim({"status": {"allocation": {"devices": {"results": results}}}}).results
    assert found["d", "p", "0"].admin_access == all(order)


def test_an_attribute_without_domain_is_of_the_drivers() -> None:
    device = {"name": "d", "attributes": {"deviceID": {"string": "x"}, "n": {"int": 1}}}
    spec = {"driver": "k8s.cni.cncf.io", "pool": {"name": "p"}, "devices": [device]}
    found = slim_slices({"items": [{"spec": spec}]})
    assert found == {("p", "d"): {"k8s.cni.cncf.io/deviceID": "x"}}


def test_paths_are_quoted() -> None:
    root = "/apis/resource.k8s.io/v1"
    assert claim_path(("a", "../b")) == f"{root}/namespaces/a/resourceclaims/..%2Fb"
    selector = "spec.driver%3Da%2Bb%2Cspec.nodeName%3Dn"
    assert slices_path(("a+b", "n")) == f"{root}/resourceslices?fieldSelector={selector}"


@pytest.mark.parametrize("slim", SLIMMERS)
@given(item=st.dictionaries(st.sampled_from(["metadata", "spec", "status", "items"]), JSON))
def test_odd_objects_are_no_answer(
    slim: Callable[[dict[str, Any]], object], item: dict[str, Any]
) -> None:
    try:
        slim(item)
    except Unanswered as exc:
        assert "misshapen" in str(exc)  # noqa: PT017 - most objects are odd, not all
