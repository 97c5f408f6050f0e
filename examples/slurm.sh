#!/bin/bash
# A run on two machines of eight GPUs: sbatch examples/slurm.sh PRESET FOLDER [options of thalweg train]
# FOLDER lies on a file system that all machines see. See docs/scale.md.
#SBATCH --job-name=thalweg
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

preset=$1 folder=$2
shift 2
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # else processes that are started again wait for those that are gone
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / 8))

# before the limit: the run saves its state and ends, the job waits for its next turn
again() {
    kill -TERM "$step"
    wait "$step"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap again TERM

srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node 8 --max-restarts 3 \
    --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "$SLURM_JOB_ID" \
    -m thalweg.cli train "$preset" --out "$folder" --device cuda "$@" &
step=$!
wait "$step"
