#!/bin/bash
# Installs slurm-efa on a HyperPod node and sets the node up:
#
#     install_slurm_efa.sh NODE_TYPE [PACKAGE]
#
# NODE_TYPE is controller, login or compute, as the base lifecycle scripts call
# their steps: ExecuteBashScript("./utils/install_slurm_efa.sh").run(node_type).
# PACKAGE is the .deb or .rpm; without it, the one beside this script. A file
# slurm-efa.toml beside this script becomes the site's configuration.
#
# On compute and login nodes it belongs before start_slurm.sh (a job's prolog
# must be there when slurmd is), on the controller after it (start_slurm.sh
# deletes lines of Prolog). It can run any number of times.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
node_type=${1:?usage: install_slurm_efa.sh NODE_TYPE [PACKAGE]}

# The package that this machine can install: FIRST MATCH of a pattern.
beside() {
    local file
    for file in "$here"/$1; do
        [ -e "$file" ] && { echo "$file"; return; }
    done
    echo "install_slurm_efa.sh: no $1 beside this script; copy the package there, or name it" >&2
    exit 69
}

# On a first boot apt is often at work (cloud-init, unattended-upgrades), and dpkg
# does not wait for it. rpm waits by itself.
lock_limit=300
install_deb() {
    local said deadline=$((SECONDS + lock_limit)) code waits=
    while :; do
        code=0
        # Nobody is there to be asked about a changed configuration: the site's stays.
        said=$(LC_ALL=C dpkg --force-confold -i "$1" 2>&1) || code=$?
        if [ "$code" -eq 0 ] || [ "$SECONDS" -ge "$deadline" ]; then break; fi
        case $said in *"locked by another process"*) ;; *) break ;; esac
        [ -n "$waits" ] || echo "install_slurm_efa.sh: dpkg is locked by another process;" \
            "waiting up to $lock_limit s" >&2
        waits=yes
        sleep 2
    done
    printf '%s\n' "$said"
    return "$code"
}

if command -v dpkg >/dev/null; then
    package=${2:-$(beside "slurm-efa_*_$(dpkg --print-architecture).deb")}
    install_deb "$package"
elif command -v rpm >/dev/null; then
    package=${2:-$(beside "slurm-efa-*.$(uname -m).rpm")}
    # A folder with an older package is the way back, as it is with dpkg.
    rpm -U --replacepkgs --oldpackage "$package"
else
    echo "install_slurm_efa.sh: neither dpkg nor rpm is here; nothing was installed" >&2
    exit 69
fi

if [ -e "$here/slurm-efa.toml" ]; then
    install -D -m 644 "$here/slurm-efa.toml" /etc/slurm-efa/slurm-efa.toml
fi

# HyperPod's own files say what this node is. The base scripts' word counts only
# where they are not there; their parameters lie beside on_create.sh.
arguments=()
parameters=$here/../provisioning_parameters.json
resources=${SAGEMAKER_RESOURCE_CONFIG_PATH:-/opt/ml/config/resource_config.json}
if [ -e "$parameters" ] && [ -e "$resources" ]; then
    arguments=(--role auto --resource-config "$resources" --provisioning-parameters "$parameters")
elif [ -e /opt/ml/config/nodeinfo.json ] || [ -e /opt/ml/config/provisioning_parameters.json ]; then
    arguments=(--role auto)
else
    arguments=(--role "$node_type")
fi

# 1 means that something was left as it is; stderr says what. That is no reason to
# end the creation of a node.
slurm-efa setup "${arguments[@]}" || { code=$?; [ "$code" -eq 1 ] || exit "$code"; }
