"""Committees of networks against one larger network with as many devices.

After D. Joksas et al., Committee machines, Nat. Commun. 11, 4273 (2020), doi 10.1038/s41467-020-18098-0: the outputs of
several networks, each on a chip of its own, are averaged. Compared at the same number of devices are committees of
networks that were trained apart, committees of copies of one network, and single networks with as many times the hidden
neurons.
"""

import argparse
from typing import Any

import numpy as np
from example_output import images_of, parser, percent, trained, write

import calib
from calib.committee import committee
from calib.figure_style import CYCLE, figure, legend_above

NETWORKS, COPIES, LARGER = "different networks", "copies of one network", "one larger network"


def main(arguments: list[str] | None = None) -> int:
    """Train, vote, write."""
    args = _arguments(arguments)
    data = images_of(args)
    device = calib.open_device(args.device)
    options = {"mapping": "lowest", "ideal": not args.aware, "epochs": args.epochs, "seed": args.seed,
               "validation_repeats": 5}  # fmt: skip
    run = trained(device, args.output / f"hidden-{args.hidden}", data, networks=max(args.members),
                  layers=(data.n_features, args.hidden, data.n_classes), **options)  # fmt: skip
    same = {"chips": args.chips, "seed": args.seed, "data": data}
    rows = []
    for kind, members in ((NETWORKS, "networks"), (COPIES, "copies")):
        found = committee(run, sizes=args.members, members=members, average=args.average, **same)
        rows += [_row(kind, size, args.hidden, found.sel(size=size)) for size in args.members]
    for size in args.members[1:]:
        hidden = size * args.hidden
        larger = trained(device, args.output / f"hidden-{hidden}", data, networks=args.larger,
                         layers=(data.n_features, hidden, data.n_classes), **options)  # fmt: skip
        rows.append(_row(LARGER, 1, hidden, committee(larger, sizes=[1], **same).sel(size=1)))
    return write(args, data, rows, _figure(rows), _sentence(rows, args))


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--device", default="ta-hfo2", help="device model (default ta-hfo2: 10 %% stuck devices)")
    made.add_argument("--aware", action="store_true", help="train on the devices (default: on ideal ones)")
    made.add_argument("--average", choices=["probability", "logits"], default="probability", help="what is averaged")
    made.add_argument("--members", metavar="N,N,...", help="sizes of committees, 1 first (default 1,2,4)")
    made.add_argument("--hidden", type=int, default=25, help="hidden neurons of a member (default 25)")
    made.add_argument("--larger", type=int, help="larger networks of each size (default 2)")
    made.add_argument("--chips", type=int, help="chips of each network (default 25)")
    made.add_argument("--epochs", type=int, help="of training (default 10)")
    args = made.parse_args(arguments)
    usual = ("1,2", 1, 4, 20) if args.quick else ("1,2,4", 2, 25, 10)
    for name, value in zip(("members", "larger", "chips", "epochs"), usual, strict=True):
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    args.members = [int(part) for part in str(args.members).split(",")]
    return args


def _row(kind: str, members: int, hidden: int, found: Any) -> dict[str, Any]:
    energy = float(found["energy_per_inference"].mean())
    return {
        "kind": kind, "members": members, "hidden neurons": hidden, "devices": int(found["devices"]),
        **percent(found["error"]), "energy (pJ)": round(1e12 * energy, 2),
    }  # fmt: skip


def _sentence(rows: list[dict[str, Any]], args: argparse.Namespace) -> str:
    largest = max(args.members)
    alone = next(row for row in rows if row["members"] == 1)
    together = {row["kind"]: row for row in rows if row["devices"] >= largest * alone["devices"] * 0.99}
    parts = [f"{row['error (%)']:.2f} % as {kind}" for kind, row in together.items()]
    return (
        f"One network of {args.hidden} hidden neurons on {args.device} has an error of {alone['error (%)']:.2f} %; "
        f"{largest} times the devices give {', '.join(parts)} (medians)."
    )


def _figure(rows: list[dict[str, Any]]) -> Any:
    with figure() as drawing:
        axes = drawing.subplots()
        for index, kind in enumerate((NETWORKS, COPIES, LARGER)):
            chosen = [row for row in rows if row["kind"] == kind]
            x = [row["devices"] / 1000 * (1 + 0.02 * (index - 1)) for row in chosen]  # apart, to be seen
            middle, low, high = (
                np.array([row[key] for row in chosen]) for key in ("error (%)", "5 % of chips", "95 % of chips")
            )
            ends = np.stack([middle - low, high - middle])
            axes.errorbar(x, middle, ends, fmt="o-", color=CYCLE[index], capsize=2, label=kind)
        axes.set_xlabel("devices (thousands)")
        axes.set_ylabel("error (%)")
        legend_above(axes)
    return drawing


if __name__ == "__main__":
    raise SystemExit(main())
