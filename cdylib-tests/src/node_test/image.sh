# Makes what a machine boots from: DISK, KERNEL, INITRD and KEY in $OUT, of the
# Debian in $ROOT, which is not changed. Runs in a mount namespace of its own.
set -eu
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

mkdir "$OUT/layer"
mount -t tmpfs tmpfs "$OUT/layer"
mkdir "$OUT/layer/upper" "$OUT/layer/work" "$OUT/layer/root"
new=$OUT/layer/root
mount -t overlay overlay "$new" \
    -o "lowerdir=$ROOT,upperdir=$OUT/layer/upper,workdir=$OUT/layer/work"
inside() { chroot "$new" "$@"; }

# Of some 4000 modules those that are needed, not compressed: udev would spend
# most of a boot on unpacking the others, where each instruction is emulated.
version=$(ls "$new/lib/modules")
modules=$new/lib/modules/$version
inside modprobe --set-version "$version" --show-depends --all \
    virtio_pci virtio_blk virtio_net virtio_rng ext4 rdma_rxe crc32_generic ib_uverbs |
    sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u >"$OUT/layer/needed"
find "$modules/kernel" -name '*.ko.xz' | while read -r file; do
    if grep -qxF "${file#"$new"}" "$OUT/layer/needed" ||
        grep -qxF "/usr${file#"$new"}" "$OUT/layer/needed"; then
        inside xz --decompress "${file#"$new"}"
    else
        rm "$file"
    fi
done
inside depmod "$version"

# The modules of all that a machine has, and no udev: the kernel itself makes
# /dev/vda.
sed -i -e 's/^MODULES=.*/MODULES=list/' -e 's/^COMPRESS=.*/COMPRESS=gzip/' \
    "$new/etc/initramfs-tools/initramfs.conf"
printf '%s\n' virtio_pci virtio_blk virtio_net virtio_rng ext4 >"$new/etc/initramfs-tools/modules"
rm "$new"/usr/share/initramfs-tools/hooks/udev "$new"/usr/share/initramfs-tools/scripts/init-*/udev
mount -t proc proc "$new/proc"
inside update-initramfs -u -k all
umount "$new/proc"
cp -L "$new/vmlinuz" "$OUT/KERNEL"
zcat "$new/initrd.img" >"$OUT/INITRD"

# One disk for all: the kernel's command line says which machine it is.
rm -f "$new/etc/hostname"
cat >"$new/etc/hosts" <<END
127.0.0.1 localhost
$HOSTS
END
cat >"$new/etc/systemd/system/cluster-network.service" <<'END'
[Unit]
Description=The address that /etc/hosts has for this machine
DefaultDependencies=no
BindsTo=sys-subsystem-net-devices-eth0.device
After=local-fs.target sys-subsystem-net-devices-eth0.device
Wants=network.target
Before=network.target network-online.target shutdown.target
Conflicts=shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ip address add "$$(sed -n "s/ $$(hostname)$$//p" /etc/hosts)/24" dev eth0 && ip link set eth0 up'
[Install]
WantedBy=multi-user.target network-online.target
END
# The rest of the hardware, some hundred devices, is nothing to udev.
mkdir "$new/etc/systemd/system/systemd-udev-trigger.service.d"
cat >"$new/etc/systemd/system/systemd-udev-trigger.service.d/few.conf" <<'END'
[Service]
ExecStart=
ExecStart=udevadm trigger --type=devices --action=add --subsystem-match=net --subsystem-match=block
END
# The word that the host waits for at each boot.
cat >"$new/etc/systemd/system/tell-host.service" <<'END'
[Unit]
Description=Tell the host that users can log in
After=ssh.service systemd-user-sessions.service systemd-logind.service munge.service cluster-network.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo "machine is up" >/dev/ttyS0'
[Install]
WantedBy=multi-user.target
END

# Debian's own units of Slurm start nothing here: a cluster's scripts do.
inside systemctl disable slurmctld.service slurmd.service
inside systemctl enable ssh.service munge.service cluster-network.service tell-host.service
inside systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
    e2scrub_all.timer e2scrub_reap.service fstrim.timer serial-getty@ttyS0.service getty@tty1.service
# They look for disks, consoles and scripts that are not here, at each boot and at
# each reload, for seconds.
mkdir -p "$new/etc/systemd/system-generators"
for generator in "$new"/usr/lib/systemd/system-generators/*; do
    ln -s /dev/null "$new/etc/systemd/system-generators/${generator##*/}"
done
mkdir -p "$new/var/log/journal"

uid=2000
for user in $USERS; do
    uid=$((uid + 1))
    inside useradd --create-home --shell /bin/bash --uid "$uid" "$user"
done
dd if=/dev/urandom of="$new/etc/munge/munge.key" bs=1024 count=1 status=none
inside chown munge: /etc/munge/munge.key
chmod 400 "$new/etc/munge/munge.key"
ssh-keygen -q -t ed25519 -N '' -C node-test -f "$OUT/KEY"
install -m 644 "$OUT/KEY.pub" "$new/etc/ssh/cluster.pub"
cat >"$new/etc/ssh/sshd_config.d/cluster.conf" <<'END'
AuthorizedKeysFile /etc/ssh/cluster.pub
PermitRootLogin yes
PasswordAuthentication no
MaxSessions 100
UseDNS no
LogLevel VERBOSE
END

rm -rf "$new"/usr/share/doc/* "$new"/usr/share/man/* "$new"/usr/share/locale/* "$new"/var/lib/apt/lists/*
truncate -s 3G "$OUT/DISK"
mkfs.ext4 -q -F -m 0 -d "$new" "$OUT/DISK"
umount "$new"
umount "$OUT/layer"
rmdir "$OUT/layer"
