#!/bin/sh
# Runs after install and upgrade; Debian says `configure`, rpm a number.
# Nothing is enabled, started or edited here: `slurm-efa setup` does that.
set -e

case "$1" in
    configure | [1-9]*) ;;
    *) exit 0 ;;
esac

if command -v systemd-tmpfiles >/dev/null 2>&1; then
    systemd-tmpfiles --create /usr/lib/tmpfiles.d/slurm-efa.conf >/dev/null 2>&1 || :
fi

# What a version before 0.2 set up: there the plugin did what this program does.
if [ -d /etc/slurm-efa/prolog.d ] && [ ! -e /etc/slurm-efa/prolog.d/slurm-efa-job-prolog ]; then
    echo "slurm-efa: run \`slurm-efa setup\` on the compute nodes, then on the controller: until then jobs" \
        "get no hugepages" >&2
fi

# An image that is being built has systemd, but runs none.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    # After an upgrade, what an administrator runs shall be the new one.
    systemctl try-restart slurm-logoutd.service gres-helper-watch.service >/dev/null 2>&1 || :
fi
