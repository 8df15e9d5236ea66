"""Trains and evaluates a small CNN on synthetic faces, and says what to do next."""

import pathlib
import subprocess
import sys

DATA, RUN = "data/synthetic", "runs/quickstart"


def main() -> None:
    commands = [
        ["prepare", "--source", "synthetic", "--out", DATA],
        ["train", "--config", "configs/quickstart.py", "--workdir", RUN],
        ["evaluate", "--workdir", RUN, "--data", DATA] + ["--split", "test", "--out", f"{RUN}/test"],
    ]
    root = pathlib.Path(__file__).resolve().parents[1]
    for command in commands:
        print("\n$ fer-jax " + " ".join(command), flush=True)
        code = subprocess.run([sys.executable, "-m", "fer_jax", *command], cwd=root).returncode
        if code:
            sys.exit(code)
    print(
        f"""
Done. Look at
  {RUN}/test/report.md             scores on 700 faces that were not used in training, with pictures
  {RUN}/training_curves.png        loss, accuracy, learning rate, speed
  {RUN}/augmented_faces.png        training faces as the network sees them
  .venv/bin/tensorboard --logdir {RUN}

Next, with the real FER2013 (fer2013.csv, icml_face_data.csv or the image folders):
  source .venv/bin/activate
  fer-jax prepare --source fer2013.csv --out data/fer2013
  python -m fer_jax.main --config configs/cnn.py
"""
    )


if __name__ == "__main__":
    main()
