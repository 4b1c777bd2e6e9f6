#!/usr/bin/env bash
# Train in several processes, one a GPU (or, without CUDA, on the CPU over gloo).
#
#   tools/dist_train.sh CONFIG NUM_PROCESSES [OPTIONS OF tools/train.py]
#
# On several nodes run it on each, with the same MASTER_ADDR and MASTER_PORT:
#
#   NNODES=4 NODE_RANK=0 MASTER_ADDR=node0 tools/dist_train.sh CONFIG 8
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 CONFIG NUM_PROCESSES [OPTIONS OF tools/train.py]" >&2
  exit 2
fi
config=$1
processes=$2
shift 2
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
# Else torchrun says 1 and warns.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
rendezvous=(--standalone)
if [ "${NNODES:-1}" -gt 1 ]; then
  rendezvous=(
    --nnodes "$NNODES"
    --node-rank "${NODE_RANK:?NODE_RANK: which of the $NNODES nodes this is, from 0}"
    --master-addr "${MASTER_ADDR:?MASTER_ADDR: the name of node 0}"
    --master-port "${MASTER_PORT:-29500}")
fi
exec "${PYTHON:-python}" -m torch.distributed.run "${rendezvous[@]}" \
  --nproc-per-node "$processes" "$tools/train.py" "$config" --launcher pytorch "$@"
