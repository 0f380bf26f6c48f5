#!/bin/busybox sh
# The guest's first program: the machine's root, read-only, under a file system in memory, becomes its root.
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs dev /dev
for module in /modules/*; do
    $busybox insmod "$module"
done
options=trans=virtio,version=9p2000.L,msize=262144
$busybox mount -t 9p -o $options,ro,cache=loose root /machine
$busybox mount -t tmpfs own /own
$busybox mkdir /own/upper /own/work
$busybox mount -t overlay -o lowerdir=/machine,upperdir=/own/upper,workdir=/own/work root /root
for folder in proc sys dev; do
    $busybox mount --move /$folder /root/$folder
done
for folder in run var/lib/cni; do
    $busybox mount -t tmpfs -o mode=0755 own /root/$folder
done
$busybox mkdir /root/run/machine
$busybox mount -t 9p -o $options,cache=none exchange /root/run/machine
exec $busybox switch_root /root /bin/bash /run/machine/second.sh
