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

# Names the files of Slurm's configuration, and NHC's, that name a file of ours:
# Debian's and RHEL's, HyperPod's and ParallelCluster's, Slurm's own default.
naming() {
    grep -lsE "^[^#]*$ours" \
        /etc/nhc/nhc.conf /etc/slurm/*.conf /etc/slurm/plugstack.conf.d/* \
        /etc/slurm-llnl/*.conf /etc/slurm-llnl/plugstack.conf.d/* \
        /usr/local/etc/*.conf /usr/local/etc/plugstack.conf.d/* \
        /opt/slurm/etc/*.conf /opt/slurm/etc/plugstack.conf.d/* /opt/slurm/etc/scripts/*.d/*
}

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

# What nodes share is the controller's to take out: here it would be gone for all
# of them. `slurm-efa setup` (is_network) knows the same types of file systems:
# NFS, SMB, SMB2, CIFS, Lustre, GPFS, BeeGFS, CephFS, FUSE.
shared=
if [ "$(cat /var/lib/slurm-efa/role 2>/dev/null)" != controller ]; then
    for file in $(naming); do
        case "$(stat -f -c %t "$file" 2>/dev/null)" in
            6969 | 517b | fe534d42 | ff534d42 | bd00bd0 | 47504653 | 19830326 | c36400 | 65735546)
                shared="$shared $file"
                ;;
        esac
    done
fi
if [ -n "$shared" ]; then
    say "not removed: files that nodes share still name its modules or programs:$shared"
    say "do not edit them here; run \`slurm-efa revert --role controller\` on the controller," \
        "then remove the package again"
    exit 1
fi

# It looks first: while something would still need the package, it changes nothing
# and ends with 2. 1: all is taken out, and it has something to say.
if slurm-efa revert --help >/dev/null 2>&1; then
    code=0
    slurm-efa revert --all-or-nothing || code=$?
    if [ "$code" -gt 1 ]; then
        say "not removed: without the package logins or jobs on this node could fail; do what is said above," \
            "run \`scontrol reconfigure\` where Slurm's files were changed, then remove the package again"
        exit 1
    fi
fi

# Whatever was left, or all of it where \`slurm-efa revert\` cannot run.
left=$(grep -lsE "^[^#]*$ours" /etc/pam.d/* || :; naming) || :
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
