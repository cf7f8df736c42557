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

# An image that is being built has systemd, but runs none.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    # After an upgrade, what an administrator runs shall be the new one.
    systemctl try-restart slurm-logoutd.service gres-helper-watch.service >/dev/null 2>&1 || :
fi
