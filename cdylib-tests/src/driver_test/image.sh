# Makes what a guest boots from: DISK, and a KERNEL and INITRD of each release, in $OUT, of the Debian in
# $ROOT, which is not changed. Runs in a mount namespace of its own.
set -eu
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

mkdir "$OUT/layer"
mount -t tmpfs tmpfs "$OUT/layer"
mkdir "$OUT/layer/upper" "$OUT/layer/work" "$OUT/layer/root"
new=$OUT/layer/root
mount -t overlay overlay "$new" \
    -o "lowerdir=$ROOT,upperdir=$OUT/layer/upper,workdir=$OUT/layer/work"
mount -t proc proc "$new/proc"
inside() { chroot "$new" "$@"; }

# Debian's kernels leave the efa driver out; its package of a kernel's source has it.
# It is built as it is, against the headers.
build_driver() {
    source=$(ls -d "$new/usr/src/linux-source-${version%.*}"*)
    cp -R "$source/drivers/infiniband/hw/efa" "$new/root/efa"
    inside make --directory "/lib/modules/$version/build" M=/root/efa CONFIG_INFINIBAND_EFA=m modules
    install -D -m 644 "$new/root/efa/efa.ko" "$modules/updates/efa.ko"
    rm -r "$new/root/efa"
    inside depmod "$version"
}

# The files of modules and of what they depend on.
needed() {
    inside modprobe --set-version "$version" --show-depends --all "$@" |
        sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++'
}

# Of the other modules those that are needed, not compressed.
keep_modules() {
    needed virtio_pci virtio_blk ext4 overlay >"$OUT/layer/boot"
    needed efa rdma_ucm rdma_rxe dummy virtio_net >"$OUT/layer/later"
    # rdma_rxe needs it, without saying so; newer kernels have it in them.
    needed crc32_generic >>"$OUT/layer/later"
    cat "$OUT/layer/boot" "$OUT/layer/later" | sed 's|^/usr||' >"$OUT/layer/needed"
    find "$modules/kernel" -name '*.ko.xz' | while read -r file; do
        if grep -qxF "${file#"$new"}" "$OUT/layer/needed"; then
            inside xz --decompress "${file#"$new"}"
        else
            rm "$file"
        fi
    done
    inside depmod "$version"
}

# The initial RAM disk: busybox, and what finds the disks.
make_initrd() {
    initrd=$OUT/layer/initrd-$version
    mkdir -p "$initrd/bin" "$initrd/modules" "$initrd/proc" "$initrd/dev" "$initrd/base" \
        "$initrd/own" "$initrd/rw" "$initrd/new"
    cp "$new/usr/bin/busybox" "$initrd/bin/busybox"
    inside ldd /usr/bin/busybox 2>/dev/null | grep -o '/lib[^ ]*' | while read -r library; do
        install -D "$new$library" "$initrd$library"
    done
    number=10
    while read -r module; do
        number=$((number + 1))
        module=${module%.xz}
        cp "$new$module" "$initrd/modules/$number-$(basename "$module")"
    done <"$OUT/layer/boot"
    printf '%s\n' "$INIT_BOOT" >"$initrd/init"
    chmod 755 "$initrd/init"
    # With the Debian's own cpio, in a folder that both see.
    mkdir "$new/mnt/initrd"
    mount --bind "$initrd" "$new/mnt/initrd"
    inside sh -c 'cd /mnt/initrd && find . | cpio --create --format=newc --quiet' >"$OUT/INITRD-$1"
    umount "$new/mnt/initrd"
    rmdir "$new/mnt/initrd"
}

# The release's own kernel, and that of its backports.
set -- stable backports
for version in $(ls "$new/lib/modules" | sort --version-sort); do
    modules=$new/lib/modules/$version
    build_driver
    keep_modules
    make_initrd "$1"
    cp -L "$new/boot/vmlinuz-$version" "$OUT/KERNEL-$1"
    shift
done
umount "$new/proc"

# The system of every guest, which writes to memory only.
printf '%s\n' "$INIT_GUEST" >"$new/usr/sbin/guest-init"
chmod 755 "$new/usr/sbin/guest-init"
mkdir -p "$new/opt/amazon/efa/bin"
for program in fi_info fi_pingpong; do
    ln -s "/usr/bin/$program" "$new/opt/amazon/efa/bin/$program"
done
inside useradd --create-home --shell /bin/bash --uid 2001 alice
dd if=/dev/urandom of="$new/etc/munge/munge.key" bs=1024 count=1 status=none
inside chown munge: /etc/munge/munge.key
chmod 400 "$new/etc/munge/munge.key"

rm -rf "$new"/usr/src "$new"/usr/include "$new"/usr/lib/gcc "$new"/usr/libexec/gcc "$new"/boot \
    "$new"/usr/lib/linux-* "$new"/usr/lib/python3* "$new"/usr/share/qemu "$new"/usr/share/seabios \
    "$new"/usr/share/ipxe "$new"/usr/share/icons "$new"/usr/bin/qemu-* \
    "$new"/usr/lib/x86_64-linux-gnu/qemu "$new"/usr/lib/x86_64-linux-gnu/libLLVM* \
    "$new"/usr/share/doc "$new"/usr/share/man "$new"/usr/share/locale "$new"/var/lib/apt \
    "$new"/var/cache/apt
truncate -s 3G "$OUT/DISK"
mkfs.ext4 -q -F -m 0 -O ^has_journal -d "$new" "$OUT/DISK"
umount "$new"
umount "$OUT/layer"
rmdir "$OUT/layer"
