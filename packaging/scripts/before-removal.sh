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

# A line that is no comment and names a file of ours, or a link to one.
ours='(/(usr/lib|etc)/slurm-efa/|pam_slurm_logout\.so|spank_(efa|gres)\.so|/efa-check|/gres-helper|/slurm-efa( |$))'

# A configless node has its lines from the controller, and needs our files until
# they are gone there: this is looked at before anything is taken out here.
cached=$(grep -lsE "^[^#]*$ours" \
    /run/slurm/conf/*.conf /var/spool/slurm*/conf-cache/*.conf /var/spool/slurm*/*/conf-cache/*.conf) || :
if [ -n "$cached" ]; then
    # The names stand on one line each; in the message they are a list.
    # shellcheck disable=SC2086
    say "not removed: the configuration from the controller still names its modules or programs:" $cached
    say "without them jobs on this node would fail; run \`slurm-efa revert\` and \`scontrol reconfigure\`" \
        "on the controller, then remove the package again"
    exit 1
fi

# 1: it has something to say, and did what it could.
if slurm-efa revert --help >/dev/null 2>&1; then
    code=0
    slurm-efa revert || code=$?
    if [ "$code" -gt 1 ]; then
        say "not removed: \`slurm-efa revert\` failed, see above; mend that, then remove the package again"
        exit 1
    fi
fi

# Debian's and RHEL's Slurm, HyperPod's and ParallelCluster's.
left=$(grep -lsE "^[^#]*$ours" \
    /etc/pam.d/* \
    /etc/slurm/*.conf /etc/slurm/plugstack.conf.d/* \
    /etc/slurm-llnl/*.conf /etc/slurm-llnl/plugstack.conf.d/* \
    /opt/slurm/etc/*.conf /opt/slurm/etc/plugstack.conf.d/* /opt/slurm/etc/scripts/*.d/*) || :
if [ -n "$left" ]; then
    # shellcheck disable=SC2086
    say "not removed: these files still name its modules or programs:" $left
    say "without them logins or jobs on this node could fail; take those lines out, run" \
        "\`scontrol reconfigure\` where Slurm's were among them, then remove the package again"
    exit 1
fi

if command -v systemctl >/dev/null 2>&1; then
    for unit in slurm-logoutd.service gres-helper-watch.service; do
        [ ! -d /run/systemd/system ] || systemctl stop "$unit" >/dev/null 2>&1 || :
        systemctl disable "$unit" >/dev/null 2>&1 || :
    done
fi
