"""sites: what a policy can name."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from fxqat.commands.command import Command
from fxqat.commands.float_model import add_model, float_model

if TYPE_CHECKING:
    pass


def run(options: Namespace) -> None:
    """``fxqat sites``."""
    from fxqat.passes import Rules, fusing, sites

    gm, _ = fusing(Rules.load(*options.patterns)).run(float_model(options).gm)
    found = sites(gm)
    width = max(len(site.path) for site in found)
    for site in found:
        print(f"{site.path:<{width}}  {site.op:<12}  {' '.join(sorted(site.roles))}".rstrip())
    print(f"{len(found)} sites; select them by site (a glob), role or op in a policy")


COMMAND = Command(
    name="sites",
    help="what a policy can name",
    example="fxqat sites yolov8n.pt",
    arguments=add_model,
    run=run,
)
