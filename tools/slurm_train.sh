#!/usr/bin/env bash
# Train on a Slurm cluster: one torchrun a node, which starts one process a GPU.
#
#   NODES=4 GPUS_PER_NODE=8 tools/slurm_train.sh PARTITION JOB_NAME CONFIG [OPTIONS]
#
# OPTIONS go to tools/train.py. SRUN_ARGS holds more options of srun, such as
# "--time 2-0". In a job of sbatch --requeue, which Slurm starts again after a
# preemption, --resume goes on from the last checkpoint.
set -euo pipefail
if [ $# -lt 3 ]; then
  echo "usage: $0 PARTITION JOB_NAME CONFIG [OPTIONS OF tools/train.py]" >&2
  exit 2
fi
partition=$1
job=$2
config=$3
shift 3
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
nodes=${NODES:-1}
gpus=${GPUS_PER_NODE:-8}
read -ra extra <<<"${SRUN_ARGS:-}"
# Within the job: the first node of its list is where the processes meet.
run='MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec "$0" -m torch.distributed.run --nnodes "$SLURM_NNODES" \
  --node-rank "$SLURM_NODEID" --master-addr "$MASTER_ADDR" \
  --master-port "${MASTER_PORT:-29500}" "$@"'
exec srun --partition "$partition" --job-name "$job" --nodes "$nodes" \
  --ntasks-per-node 1 --gres "gpu:$gpus" --cpus-per-task "${CPUS_PER_TASK:-$((gpus * 4))}" \
  --kill-on-bad-exit=1 "${extra[@]}" \
  bash -c "$run" "${PYTHON:-python}" --nproc-per-node "$gpus" \
  "$tools/train.py" "$config" --launcher pytorch "$@"
