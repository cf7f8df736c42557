#!/bin/bash
# OnNodeConfigured and OnNodeUpdated of AWS ParallelCluster:
#
#     parallelcluster_node.sh ROLE S3_FOLDER
#
# ROLE is controller (the head node), compute or login. S3_FOLDER has
# install_slurm_efa.sh, the package and, if there is one, slurm-efa.toml. Not run on AWS.
set -euo pipefail

role=${1:?usage: parallelcluster_node.sh ROLE S3_FOLDER}
source=${2:?usage: parallelcluster_node.sh ROLE S3_FOLDER}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
aws s3 cp --quiet --recursive "$source/" "$folder/"
bash "$folder/install_slurm_efa.sh" "$role"
