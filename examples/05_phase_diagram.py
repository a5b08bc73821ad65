"""Where in the plane of β1 and β2 does Adam end on the wrong side? A grid of runs of a game that it may lose.

    python examples/05_phase_diagram.py                                 on all cores of this machine
    python examples/05_phase_diagram.py --scheduler tcp://host:8786     on a Dask cluster

Look at the picture: where it is orange the runs end farther from the optimum than they began, and theory's lines say
where that begins. `--resume FILE` keeps finished rows, so that a sweep which was stopped goes on where it was.
For a Ray cluster call ray.init(address=…) and take backend="ray". The workers need stepscope.
"""

import argparse
from contextlib import AbstractContextManager, nullcontext

import sympy

from stepscope import Problem, phase_diagram
from stepscope.synthetic import Cyclic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=16, help="cells along each axis")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster")
    parser.add_argument("--resume", metavar="FILE", help="keeps finished rows")
    asked = parser.parse_args()
    cluster: AbstractContextManager[object] = nullcontext()
    if asked.scheduler:
        from dask.distributed import Client

        cluster = Client(asked.scheduler)

    x = sympy.Symbol("x")
    game = Problem([1010 * x, -10 * x], Cyclic([0] + [1] * 100), domain=(-1, 1), start=0)
    print(f"The optimum is at {game.optimum[0]:g}; one step in 101 leads there.")
    with cluster:
        diagram = phase_diagram(
            game,
            "adam",
            ("beta1", 0.0, 0.99),
            ("beta2", 0.9, 0.99999),
            size=(asked.size, asked.size),
            steps=100_000,
            lr="0.5/sqrt(t)",
            backend="dask" if asked.scheduler else "loky",
            resume=asked.resume,
            progress=lambda done, of: print(f"{done} of {of} cells"),
        )
    print(f"{diagram.played} cells played in {diagram.seconds:.0f} s")
    for ending in ("right", "undecided", "wrong"):
        print(f"{diagram.share(ending):4.0%} {ending}")
    print(diagram.draw("runs/phase.png"))


if __name__ == "__main__":
    main()
