#!/bin/sh
# Runs before removal, not before an upgrade; Debian says `remove`, rpm 0.
#
# A module that a PAM stack requires and that is missing locks everyone out; a
# Prolog that is missing drains the node. So the lines go first, and the package
# stays while one is left.
set -e

case "$1" in
    remove | 0) ;;
    *) exit 0 ;;
esac

say() {
    echo "slurm-efa: $*" >&2
}

if slurm-efa revert --help >/dev/null 2>&1; then
    slurm-efa revert || {
        say "not removed: \`slurm-efa revert\` failed, see above; mend that, then remove the package again"
        exit 1
    }
fi

# Lines that are no comments and name one of our files, in Debian's and RHEL's
# Slurm, HyperPod's and ParallelCluster's, and in a configless node's cache.
ours='(/usr/lib/slurm-efa/|pam_slurm_logout\.so|spank_(efa|gres)\.so|/efa-check|/gres-helper|/slurm-efa( |$))'
left=$(grep -lsE "^[^#]*$ours" \
    /etc/pam.d/* \
    /etc/slurm/*.conf /etc/slurm/plugstack.conf.d/* \
    /etc/slurm-llnl/*.conf /etc/slurm-llnl/plugstack.conf.d/* \
    /opt/slurm/etc/*.conf /opt/slurm/etc/plugstack.conf.d/* /opt/slurm/etc/scripts/*.d/* \
    /run/slurm/conf/*.conf) || :
if [ -n "$left" ]; then
    # The names stand on one line each; on the message's line they are a list.
    # shellcheck disable=SC2086
    say "not removed: these files still name its modules or programs:" $left
    say "without them logins or jobs on this node could fail; take those lines out, run" \
        "\`scontrol reconfigure\` where Slurm's were among them, then remove the package again"
    exit 1
fi

if command -v systemctl >/dev/null 2>&1; then
    [ ! -d /run/systemd/system ] || systemctl stop slurm-logoutd.service >/dev/null 2>&1 || :
    systemctl disable slurm-logoutd.service >/dev/null 2>&1 || :
fi
