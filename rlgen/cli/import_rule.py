"""`rlgen import-rule`: convert an update rule that was trained elsewhere to a rule file."""

from collections.abc import Sequence
from pathlib import Path

from rlgen.cli.options import flag, option, parse, positional

ABOUT = (
    "Convert an update rule with the architecture of LPG to a rule file of rlgen. The rule's "
    "parameters are given as named arrays (.npz) or as one vector (.npy). A JSON file describes "
    "them. Its `shapes` are the shapes of the arrays by name, in order. Its `convention` is "
    "`ascent` if agents maximise the rule's target times the log-probability of the action, or "
    "`descent` if they minimise this product. Its `layout` is needed only if it cannot be "
    "inferred, and its `inputs` only if they differ from the default. Unknown values are rejected."
)


def import_rule(args: Sequence[str]) -> int:
    """Run `rlgen import-rule`: convert the rule, write the file, and return the exit code."""
    fields = [
        positional("arrays", "file with the arrays", default=""),
        positional("description", "JSON file that describes the arrays", default=""),
        option(str, "rule.npz", "out", "output file"),
        flag("overwrite", "replace an existing file"),
    ]
    given = parse(fields, "rlgen import-rule", ABOUT, args)
    if not given.arrays or not given.description:
        raise ValueError("name two files: rlgen import-rule ARRAYS DESCRIPTION --out rule.npz")
    from rlgen.algos.rules import files, import_groove

    out = Path(given.out)
    if out.suffix != ".npz":
        raise ValueError(f"--out {out} must end in .npz")
    if out.exists() and not given.overwrite:
        raise ValueError(f"{out} already exists; add --overwrite, or choose another --out")
    learned = import_groove.import_rule(given.arrays, given.description)
    files.save_rule(out, learned.rule, learned.params, learned.meta)
    print(f"{out}: rule with a {learned.rule.core} of {learned.rule.hidden_size} units. Test it:")
    print(f"  rlgen eval {out} --suite gridworld/unseen")
    return 0
