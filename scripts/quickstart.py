"""Trains and evaluates a small CNN on synthetic faces, and says what to do next."""

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
Done. Look at
  runs/quickstart/test/report.md        scores on 700 faces that were not used in training, with pictures
  runs/quickstart/training_curves.png   loss, accuracy, learning rate, speed
  runs/quickstart/augmented_faces.png   training faces as the network sees them
  .venv/bin/tensorboard --logdir runs/quickstart

Next, with the real FER2013 (fer2013.csv, icml_face_data.csv or the image folders):
  source .venv/bin/activate
  fer-jax prepare --source fer2013.csv --out data/fer2013
  python -m fer_jax.main --config configs/cnn.py
""")
