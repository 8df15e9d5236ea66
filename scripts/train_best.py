"""Trains the best networks that this project knows how to train, joins them, and teaches one what they know.

    python scripts/train_best.py --out runs/best_networks --data data/fer2013 --seeds 0 1 2
    python scripts/train_best.py --out runs/best_networks --data data/fer2013 --ferplus data/ferplus
    python scripts/train_best.py --config configs/best_small.py --out runs/best_small --seeds 0 1

configs/best.py is for a GPU, configs/best_small.py for two CPU cores; another has NETWORKS, the networks by
name, and gives the configuration of each. The same command again goes on where it stopped, and SIGTERM and
Ctrl-C save first. In OUT come, one after the other,

  FIRST/seed_N      the first network of the configuration (residual) with every seed, FER2013's own labels;
  OTHER/seed_N      the others (deep, plain), with the first two seeds;
  ferplus/seed_N    with --ferplus, the same images with FER+ votes: the first network on the votes as soft
                    labels; extra annotations, so it is no member of the ensemble;
  ensemble          at most seven of them, chosen on the validation split by mirrored views (ensemble.py);
  distilled/NAMES   the first network with the first seed again, taught by the ensemble, whose members the
                    folder's name tells.

OUT/results.md tables them after each: accuracy with one view and with the mirror image, 95 % intervals, over
seeds the mean and the standard deviation; what the votes gain, judged by FER2013's labels and by the majority
of the votes, with intervals over seeds and images; and what the distilled network keeps of the ensemble's
gain. The split that the accuracies are of selects each training's epoch, too. What follows -- is for every
training.
"""

import argparse
import json
import pathlib
import runpy
import statistics
import sys
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import numpy as np  # noqa: E402
import trainings  # noqa: E402

from fer_jax.data import builder, ferplus  # noqa: E402
from fer_jax.evaluation import ablation, command, markdown  # noqa: E402

FERPLUS, DISTILLED, ENSEMBLE = "ferplus", "distilled", "ensemble"
VOTES = "--config.data.labels=ferplus_votes"
JUDGED, MIRRORED, BY_MAJORITY = "judged", "mirrored", "by_majority"
FIGURES = ("accuracy", "macro_f1")
COLUMNS = ("run", "labels", "accuracy, one view", "with its mirror image", "macro F1", "minutes")


class Trainings:
    """The trainings of a folder, one after the other.

    Args:
      options: of the command line.
      networks: the names of the configuration's, the first one first.

    Attributes:
      first: the name of the first network.
      code: of the first command that failed, 0 while none has.
      done: the trainings by group that this call has made or recognised.
      joined: whether it has chosen an ensemble of them.
    """

    def __init__(self, options: argparse.Namespace, networks: Sequence[str]):
        self.options, self.out, self.networks = options, options.out.resolve(), networks
        self.first, *self._others = networks
        self.commands = trainings.Commands()
        self.done: dict[str, list[pathlib.Path]] = {}
        self.code, self.joined = 0, False

    def train(
        self,
        group: str,
        network: str,
        seed: int,
        *flags: str,
        data: pathlib.Path | None = None,
        name: str | None = None,
    ) -> bool:
        """Trains and evaluates one network; whether that went well."""
        workdir = self.out / group / (name or f"seed_{seed}")
        data = (data or self.options.data).resolve()
        config = f"{self.options.config}:{network}"
        self.code = self.commands.train(config, workdir, *self._flags(seed, data, *flags))
        if self.code:
            return False
        ways = {
            JUDGED: (f"--data={data}", "--labels=given"),
            MIRRORED: (f"--data={data}", "--labels=given", "--tta=flip"),
        }
        if self.options.ferplus and group in (self.first, FERPLUS):
            votes = self.options.ferplus.resolve()
            # Of another dataset the training's own has to be named, to look for copies in.
            ways[BY_MAJORITY] = (f"--data={votes}", "--labels=ferplus_majority", f"--training_data={data}")
        for folder, flags in ways.items():
            if not (workdir / folder / "report.json").is_file() and not self.run(
                "evaluate.py", f"--workdir={workdir}", *flags, f"--out={workdir / folder}"
            ):
                return False
        self.done.setdefault(group, []).append(workdir)
        self.write()
        return True

    def _flags(self, seed: int, data: pathlib.Path, *flags: str) -> tuple[str, ...]:
        """A training's, for the configuration."""
        return f"--config.data.dir={data}", f"--config.seed={seed}", *flags, *self.options.arguments

    def refuse_others(self) -> None:
        """Refuses a folder with trainings of another configuration.

        Raises:
          ValueError: the folder is one.
        """
        known = {*self.networks, FERPLUS, DISTILLED, ENSEMBLE}
        found = sorted(path.name for path in self.out.glob("*/") if path.name not in known)
        if found:
            raise ValueError(
                f"{self.out} has {', '.join(found)}, which {self.options.config} has not: give another --out"
            )
        runs = {}
        for group in self.networks:
            for seed in self.options.seeds:
                flags = self._flags(seed, self.options.data.resolve())
                config = trainings.load_config(f"{self.options.config}:{group}", flags)
                runs[self.out / group / f"seed_{seed}"] = config
        for seed in self.options.seeds if self.options.ferplus else ():
            flags = self._flags(seed, self.options.ferplus.resolve(), VOTES)
            config = trainings.load_config(f"{self.options.config}:{self.first}", flags)
            runs[self.out / FERPLUS / f"seed_{seed}"] = config
        trainings.refuse_others(runs)

    def run(self, script: str, *arguments: str) -> bool:
        """Runs a script of this folder; whether it went well."""
        self.code = self.commands.run(sys.executable, f"scripts/{script}", *arguments)
        return not self.code

    def join(self) -> list[str] | None:
        """Chooses the ensemble; its members' work directories by name, None where that failed."""
        runs = [run for group in self.networks for run in self.done.get(group, [])]
        views = [str(run / MIRRORED) for run in runs]
        if not self.run("ensemble.py", *views, f"--out={self.out / ENSEMBLE}", "--most=7"):
            return None
        self.joined = True
        chosen = json.loads((self.out / ENSEMBLE / "ensemble.json").read_text())["members"]
        return sorted(str(runs[place]) for place in chosen)

    def write(self) -> None:
        """The table of what is there so far."""
        rows = []
        for group, runs in self.done.items():
            found = [[json.loads((run / part / "report.json").read_text()) for run in runs]
                     for part in (JUDGED, MIRRORED)]  # fmt: skip
            labels = "FER+ votes (extra annotations)" if group == FERPLUS else "given"
            for run, one, mirrored in zip(runs, *found, strict=True):
                minutes = json.loads((run / "summary.json").read_text())["seconds"] / 60
                figures = [_with_interval(one), _with_interval(mirrored), f"{one['macro_f1']:.3f}"]
                rows.append((f"{group}/{run.name}", labels, *figures, f"{minutes:.1f}"))
            if len(runs) > 1:
                spread = [_spread([report["accuracy"] for report in part]) for part in found]
                rows.append((f"**{group}**, mean ± std", labels, *spread, "", ""))
        lines = [trainings.origin(run for runs in self.done.values() for run in runs), ""]
        lines += markdown.table(COLUMNS, rows)
        if FERPLUS in self.done:
            lines += ["", "## What FER+ votes gain (extra annotations)", "", *self._gain_of_votes()]
        if self.joined:
            page = (self.out / ENSEMBLE / "ensemble.md").read_text().replace("](", "](ensemble/")
            lines += ["", "## Ensemble, mirrored views", "", page]
        if DISTILLED in self.done:
            lines += ["", self._kept()]
        (self.out / "results.md").write_text("\n".join(lines) + "\n")

    def _gain_of_votes(self) -> list[str]:
        """The first network taught by the votes against itself taught by the labels, seed by seed."""
        pairs = list(zip(self.done[self.first], self.done[FERPLUS], strict=False))
        rows = []
        for part, judge in ((JUDGED, "FER2013's labels"), (BY_MAJORITY, "the majority of the votes")):
            paths = {
                ablation.BASELINE: [one / part for one, _ in pairs],
                FERPLUS: [two / part for _, two in pairs],
            }
            runs, first = ablation.read_reports(paths)
            groups = np.arange(len(first.ids)) if first.groups is None else first.groups
            row = ablation.compare(runs, first.labels, groups)[FERPLUS]
            rows.append((judge, f"{len(first.ids):,}", *(ablation.difference(row[key]) for key in FIGURES)))
        return [
            f"Points by which votes in the place of labels raise the figures of one view, over {len(pairs)} "
            f"seed{'s' * (len(pairs) > 1)}, with 95 % intervals; in bold where they leave out 0.",
            "",
            *markdown.table(("judged by", "images", *(ablation.FIGURES[key] for key in FIGURES)), rows),
        ]

    def _kept(self) -> str:
        """How much of the ensemble's gain one network has been taught."""
        (distilled,), alone = self.done[DISTILLED], self.done[self.first][0]
        reports = (run / MIRRORED for run in (alone, distilled))
        single, taught, joined = (
            100 * json.loads((folder / "report.json").read_text())["accuracy"]
            for folder in (*reports, self.out / ENSEMBLE)
        )
        share = f", {(taught - single) / (joined - single):.0%} of it" if joined > single else ""
        return (
            f"Mirrored views: {alone.parent.name}/{alone.name} {single:.2f} %, the ensemble {joined:.2f} % "
            f"({joined - single:+.2f}), the same network taught by it {taught:.2f} % "
            f"({taught - single:+.2f}{share})."
        )

    def run_all(self) -> int:
        """Everything in its order; the exit code."""
        seeds = self.options.seeds
        plan = [(self.first, seed) for seed in seeds]
        plan += [(network, seed) for network in self._others for seed in seeds[:2]]
        if not all(self.train(network, network, seed) for network, seed in plan):
            return self.code
        if self.options.ferplus and not all(
            self.train(FERPLUS, self.first, seed, VOTES, data=self.options.ferplus) for seed in seeds
        ):
            return self.code
        members = self.join()
        if members is None:
            return self.code
        self.write()
        teachers = f"--config.distill.teachers={tuple(members)!r}"
        # Other teachers, which more seeds may bring, are another run.
        names = [f"{run.parent.name}_{run.name}" for run in map(pathlib.Path, members)]
        name = f"seed_{seeds[0]}_by_{'+'.join(names)}"
        self.train(DISTILLED, self.first, seeds[0], teachers, name=name)
        return self.code


def networks_of(config: str) -> list[str]:
    """The names of a configuration's networks.

    Args:
      config: its file, from the repository's root.

    Raises:
      ValueError: there is no such file, or it has no networks, or one whose folder is another's here.
    """
    path = ROOT / config
    if not path.is_file():
        raise ValueError(f"--config {config}: there is no {path}")
    found = list(runpy.run_path(str(path)).get("NETWORKS", ()))
    if not found:
        raise ValueError(f"--config {config} has no NETWORKS: expected one like configs/best.py")
    if taken := {FERPLUS, DISTILLED, ENSEMBLE}.intersection(found):
        raise ValueError(f"--config {config} has a network {', '.join(taken)}: call it otherwise")
    return found


def check(options: argparse.Namespace, networks: Sequence[str]) -> None:
    """Refuses, before hours of work, what would fail later.

    Raises:
      DatasetError: a dataset is not there or has no votes.
      As `checks.rehearse`: an argument after -- does not fit every network.
    """
    names = [f"{options.config}:{name}" for name in networks]
    trainings.rehearse([trainings.load_config(name, options.arguments) for name in names])
    manifest = builder.read_manifest(options.data)
    if not options.ferplus:
        return
    voted = builder.read_manifest(options.ferplus)
    if ferplus.ANNOTATION not in voted["annotations"]:
        raise builder.DatasetError(
            f"--ferplus {options.ferplus} has no FER+ votes: make it by scripts/prepare_data.py --ferplus"
        )
    for split in ("train", "validation"):
        if manifest["splits"].get(split, {}).get("hash") != voted["splits"].get(split, {}).get("hash"):
            raise builder.DatasetError(
                f"--ferplus {options.ferplus} has another {split} split than {options.data}: make both from "
                "the same images and labels by scripts/prepare_data.py"
            )


def _with_interval(report: dict) -> str:
    low, high = (100 * bound for bound in report["interval_95"]["accuracy"])
    return f"{100 * report['accuracy']:.2f} ({low:.1f} to {high:.1f})"


def _spread(values: list[float]) -> str:
    return f"{100 * statistics.mean(values):.2f} ± {100 * statistics.stdev(values):.2f}"


def main() -> int:
    parser = trainings.make_parser(__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the trainings and results")
    parser.add_argument(
        "--config", default="configs/best.py", metavar="FILE", help="(default: configs/best.py)"
    )
    parser.add_argument(
        "--data", type=pathlib.Path, default=ROOT / "data/fer2013", help="(default: data/fer2013)"
    )
    parser.add_argument("--ferplus", type=pathlib.Path, metavar="DATA", help="a dataset with FER+ votes")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="(default: 0 1 2)"
    )
    options = parser.parse_args()
    trainings.refuse(parser, options.arguments, ("config", "workdir", "config.data.dir", "config.seed"))
    options.seeds = list(dict.fromkeys(options.seeds))

    def train(options: argparse.Namespace) -> int:
        networks = networks_of(options.config)
        check(options, networks)
        found = Trainings(options, networks)
        found.refuse_others()
        return found.run_all()

    return command.run(train, options)


if __name__ == "__main__":
    sys.exit(main())
