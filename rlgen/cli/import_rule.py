"""`rlgen import-rule`: convert an update rule that was trained elsewhere to a rule file."""

from collections.abc import Sequence
from pathlib import Path

from rlgen.cli.options import flag, option, parse, positional

ABOUT = (
    "Convert an LPG-like update rule to a rule file. The rule is given as arrays (.npz, or .npy of "
    "one vector) and a JSON file that describes them. The JSON contains `shapes` (by name, in "
    "order), `convention` (ascent or descent on the target times log-probability) and, if they "
    "differ from the released code, `inputs` and `layout`. Unknown values are rejected."
)


def import_rule(args: Sequence[str]) -> int:
    """Run `rlgen import-rule`: read, convert, write; returns the exit code."""
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
        raise ValueError(f"--out {out}: rules are written as .npz")
    if out.exists() and not given.overwrite:
        raise ValueError(f"{out} already exists; add --overwrite, or choose another --out")
    learned = import_groove.import_rule(given.arrays, given.description)
    files.save_rule(out, learned.rule, learned.params, learned.meta)
    print(f"{out}: a rule with a {learned.rule.core} of {learned.rule.hidden_size} units. Try it:")
    print(f"  rlgen eval {out} --suite gridworld/unseen")
    return 0
