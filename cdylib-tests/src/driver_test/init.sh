#!/bin/bash
# The guest's first process: it mounts, loads the driver, and is root's shell on the
# second serial line from then on.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t debugfs debugfs /sys/kernel/debug
mount -t cgroup2 cgroup2 /sys/fs/cgroup
word() { sed -n "s/.*\\b$1=\\([^ ]*\\).*/\\1/p" /proc/cmdline; }
hostname "$(word name)"
ip link set lo up
ulimit -l unlimited
ulimit -n 65536
if [ -n "$(word address)" ]; then
    modprobe virtio_net
    ip address add "$(word address)/24" dev eth0
    ip link set eth0 up
fi
modprobe -a efa rdma_ucm
cd /root || exit
exec </dev/ttyS1 >/dev/ttyS1 2>&1
stty raw -echo
dmesg --console-off
echo 'guest is up'
# A pipe, so that the shell is not an interactive one.
cat | bash
