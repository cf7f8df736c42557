#!/bin/sh
# Runs after removal and, on Debian, after purge; nothing after an upgrade.
set -e

case "$1" in
    remove | purge | 0) ;;
    *) exit 0 ;;
esac

if [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
fi

# Logs, backups and the configuration outlive a removal, not Debian's purge.
# What /run/slurm-efa says of jobs that still run is kept until the next boot.
if [ "$1" = purge ]; then
    rm -rf /var/log/slurm-efa /var/lib/slurm-efa
    rmdir /etc/slurm-efa 2>/dev/null || :
fi
