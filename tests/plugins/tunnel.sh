#!/bin/sh
# A CNI plugin whose interface has a default route of its own: without gateway, with metric and MTU.
set -e
cat >/dev/null
inside() { nsenter --net="$CNI_NETNS" "$@" >&2; }
case $CNI_COMMAND in
ADD)
    inside ip link add "$CNI_IFNAME" type veth peer name peer0
    inside ip link set peer0 up
    inside ip address add 10.99.0.2/24 dev "$CNI_IFNAME"
    inside ip link set "$CNI_IFNAME" up
    inside ip route add default dev "$CNI_IFNAME" metric 50 mtu 1300
    echo "{\"cniVersion\": \"1.0.0\", \"interfaces\": [{\"name\": \"$CNI_IFNAME\", \"sandbox\": \"$CNI_NETNS\"}],
        \"ips\": [{\"address\": \"10.99.0.2/24\", \"interface\": 0}], \"routes\": [{\"dst\": \"0.0.0.0/0\"}]}"
    ;;
DEL) inside ip link del "$CNI_IFNAME" ;;
esac
