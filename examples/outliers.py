"""Which pictures are no digits? Energies of a trained model that was exported and loaded again.

Needs a run: `thalweg train egc/digits --out runs/quickstart`.
Usage: python examples/outliers.py runs/quickstart
"""

import sys
import tempfile

import thalweg as tw

run = sys.argv[1] if len(sys.argv) > 1 else "runs/quickstart"
with tempfile.TemporaryDirectory() as folder:
    tw.save(tw.load(run), folder)  # safetensors and config.json: loading it runs no code
    model = tw.load(folder)

digits = tw.data.load("digits", "test").all().x
inlier = model.energy(digits)
print(f"digits: mean energy {inlier.mean():.1f} nats")
for kind in ("uniform", "constant", "noise", "interpolation", "shuffled"):
    score = model.energy(tw.evaluate.outliers(kind, digits, len(digits)))
    r = tw.evaluate.ood(inlier, score, bootstrap=200)
    low, high = r.auroc_interval
    print(f"{kind:14} mean energy {score.mean():9.1f} nats, AUROC {r.auroc:.3f} ({low:.3f} to {high:.3f}), FPR@95 {r.fpr95:.3f}")
