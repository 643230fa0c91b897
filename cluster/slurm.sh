#!/usr/bin/env bash
# A sweep on Slurm: Ray on every node of the allocation, the sweep on the first, everything ended with the job.
#
#   sbatch cluster/slurm.sh sweeps/quickstart.yaml --out /shared/runs --store /shared/experts
#
# from the repository's root, installed by `make quickstart` or `pip install -e .` in .venv on a file system that all nodes
# see, as the run folder, the store and $HOME are. Change the resources here, or give them to sbatch. Before the time is
# over the job goes back into the queue and later goes on; `ddnl status RUN` works from a login node.
#SBATCH --job-name=ddnl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=ddnl-%j.log
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export PATH="$PWD/.venv/bin:$PATH"

# The token is made for this job, and goes with it; only its owner can read it.
private="$HOME/.ddnl-slurm-$SLURM_JOB_ID"
(umask 077; mkdir -p "$private"; python -c 'import secrets; print(secrets.token_hex(32))' > "$private/token")
chmod 600 "$private/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$private/token"
export RAY_USAGE_STATS_ENABLED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1

# A job of the same user on the same node has other ports and another folder. 20 GB of object store are 1.5 expert
# buffers (cluster.yaml has the arithmetic), of the 64 GB above; what does not fit goes to the node's own disk.
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 4000))
address="$(getent ahostsv4 "${nodes[0]}" | awk 'NR == 1 {print $1}'):$port"
scratch="${DDNL_SCRATCH:-/tmp}/ddnl-$SLURM_JOB_ID"
gpus="${SLURM_GPUS_ON_NODE:-0}"

on=(srun --nodes=1 --ntasks=1 --overlap)

# up N: wait until N nodes have joined.
up() {
  python - "$address" "$1" << 'PYTHON'
import sys
import time

import ray

end = time.monotonic() + 600
while time.monotonic() < end:
    try:
        ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False, ignore_reinit_error=True)
        if sum(node["Alive"] for node in ray.nodes()) >= int(sys.argv[2]):
            sys.exit()
    except ConnectionError:
        pass
    time.sleep(2)
sys.exit(f"Ray did not come up on {sys.argv[2]} nodes within ten minutes")
PYTHON
}

sweep=""
finish() {
  trap - EXIT TERM INT
  # shellcheck disable=SC2046  # a list of numbers
  kill $(jobs -p) 2> /dev/null || true
  wait || true
  for node in "${nodes[@]}"; do "${on[@]}" --nodelist="$node" rm -rf "$scratch" || true; done
  rm -rf "$private"
}
trap finish EXIT
trap 'kill "$sweep" 2> /dev/null; scontrol requeue "$SLURM_JOB_ID"; exit 143' TERM
trap 'exit 130' INT

"${on[@]}" --nodelist="${nodes[0]}" ray start --head --block --node-ip-address="${address%:*}" --port="$port" \
  --include-dashboard=false --ray-client-server-port=$((port + 4000)) --dashboard-agent-listen-port=$((port + 8000)) \
  --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --temp-dir="$scratch/ray" \
  --object-store-memory=20000000000 --object-spilling-directory="$scratch/spill" &
up 1
for node in "${nodes[@]:1}"; do
  "${on[@]}" --nodelist="$node" ray start --address="$address" --block --dashboard-agent-listen-port=$((port + 8000)) \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --temp-dir="$scratch/ray" \
    --object-store-memory=20000000000 --object-spilling-directory="$scratch/spill" &
done
up "${#nodes[@]}"

ddnl sweep "$@" --address "$address" &
sweep=$!
wait "$sweep"
