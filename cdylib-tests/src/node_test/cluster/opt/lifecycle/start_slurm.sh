#!/bin/bash
# What HyperPod's step of this name comes to, for the node type of its argument:
# the controller has Slurm's files, every other node gets them from it.
set -eu

mkdir -p /var/spool/slurmd /var/spool/slurmctld /var/log/slurm
chown slurm: /var/spool/slurmctld /var/log/slurm
for part in bin sbin; do ln -sfn "/usr/$part" "/opt/slurm-24.11/$part"; done
ln -sfn /usr/lib/x86_64-linux-gnu /opt/slurm-24.11/lib
ln -sfn /opt/slurm-24.11 /opt/slurm
# Debian's programs look into /etc/slurm for what HyperPod's have in /opt/slurm/etc.
rm -rf /etc/slurm
ln -sfn /opt/slurm/etc /etc/slurm

case $1 in
    controller) service=slurmctld ;;
    *)
        rm -f /opt/slurm/etc/*.conf
        service=slurmd
        ;;
esac
systemctl --quiet enable $service
systemctl start $service
