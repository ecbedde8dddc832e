"""prepare: from a checkpoint to a graph with quantizers."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from fxqat.commands.arguments import add_output, add_patterns, add_policy, add_quiet, add_target, add_trust
from fxqat.commands.command import Command, default_name, output, say_unnamed
from fxqat.commands.policy_option import policy_of
from fxqat.commands.progress import working
from fxqat.policy.resources import DEFAULT_POLICY

if TYPE_CHECKING:
    from fxqat.graph.pipeline import Gap


def arguments(parser: ArgumentParser) -> None:
    """What ``fxqat prepare`` takes."""
    parser.add_argument(
        "model", metavar="MODEL", help="yolov8n.pt, your own best.pt, or an architecture such as yolov8n.yaml"
    )
    add_policy(parser, default=DEFAULT_POLICY)
    add_target(parser, "the policy's")
    parser.add_argument("--classes", type=int, metavar="N", help="number of classes, for an architecture")
    parser.add_argument(
        "--nms-free",
        action="store_true",
        help="let YOLOv10 and YOLO26 predict by their branches without NMS (default: as Ultralytics does)",
    )
    parser.add_argument(
        "--passes",
        default="",
        metavar="TEXT",
        help="passes on the fused graph, such as 'swap_activation{sites=model.0.**,to=relu}'; also those of --patterns",
    )
    parser.add_argument("--print-passes", action="store_true", help="show what each pass changes as it runs")
    add_output(parser, "MODEL.fxqat in this folder")
    add_patterns(parser)
    add_quiet(parser)
    add_trust(parser)


def run(options: Namespace) -> None:
    """``fxqat prepare``."""
    import fxqat

    path = output(options, Path(default_name(options.model, ".fxqat")).name, ".fxqat")
    policy = policy_of(options)
    with working(f"preparing {Path(options.model).name}", options.quiet or options.print_passes):
        model = fxqat.load(options.model, trust=options.trust, classes=options.classes, nms_free=options.nms_free)
        say_unnamed(model, options.model)
        qat, report = fxqat.prepare(
            model,
            policy,
            patterns=options.patterns,
            passes=options.passes,
            between=PassPrinter() if options.print_passes else None,
        )
        fxqat.save(qat, path)
    if not options.quiet:
        print(report, end="")
    print(f"wrote {path}")


class PassPrinter:
    """Prints what each pass changed, as soon as it did."""

    def __init__(self) -> None:
        self.before = ""

    def __call__(self, gap: Gap) -> None:
        """Print the difference that the last pass made."""
        from fxqat.graph.text import diff, text

        after = text(gap.gm.graph)
        if gap.done is not None:
            print(f"{gap.done.name}\n{diff(self.before, after)}", end="", flush=True)
        self.before = after


COMMAND = Command(
    name="prepare",
    help="trace, fuse, assign the policy, insert quantizers",
    example="fxqat prepare yolov8n.pt --policy critical",
    arguments=arguments,
    run=run,
)
