"""Trains and evaluates a small CNN on synthetic faces, and prints the next steps."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMANDS = (
    "prepare --source synthetic --out data/synthetic",
    "train --config configs/quickstart.py --workdir runs/quickstart",
    "evaluate --workdir runs/quickstart --data data/synthetic --split test --out runs/quickstart/test",
)

for command in COMMANDS:
    print(f"\n$ fer-jax {command}", flush=True)
    process = subprocess.run([sys.executable, "-m", "fer_jax", *command.split()], cwd=ROOT)
    if process.returncode:
        sys.exit(process.returncode)
print("""
Done. Results:
  runs/quickstart/test/report.md        metrics and figures for 700 faces that were not used in training
  runs/quickstart/training_curves.png   loss, accuracy, learning rate, throughput
  runs/quickstart/augmented_faces.png   augmented training faces
  .venv/bin/tensorboard --logdir runs/quickstart

Next, with the real FER2013 (fer2013.csv, icml_face_data.csv, or image folders):
  source .venv/bin/activate
  fer-jax prepare --source fer2013.csv --out data/fer2013
  python -m fer_jax.main --config configs/cnn.py
""")
