#!/bin/busybox sh
# The guest's /init: its disk and, above it, that of this run, both read only; what
# is written stays in memory.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module" || echo "insmod $module failed"; done
mount -t ext4 -o ro /dev/vda /base
mount -t ext4 -o ro /dev/vdb /own
mount -t tmpfs -o mode=755 rw /rw
mkdir /rw/upper /rw/work
mount -t overlay overlay /new -o lowerdir=/own:/base,upperdir=/rw/upper,workdir=/rw/work
umount /proc /dev
exec switch_root /new /usr/sbin/guest-init
