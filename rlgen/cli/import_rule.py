"""`rlgen import-rule`: an update rule that was trained elsewhere, as a rule file of rlgen."""

from collections.abc import Sequence
from pathlib import Path

from rlgen.cli.options import flag, option, parse, positional

ABOUT = (
    "Turn an LPG-like update rule given as arrays (.npz, or .npy of one vector) and a JSON that "
    "describes them into a rule file. The JSON holds `shapes` (by name, in order), `convention` "
    "(ascent or descent of the target times log-probability) and, where they differ from released "
    "code, `inputs` and `layout`; what is not known is refused by name."
)


def import_rule(args: Sequence[str]) -> int:
    """Read, convert, write."""
    fields = [
        positional("arrays", "file of the arrays", default=""),
        positional("description", "JSON of them", default=""),
        option(str, "rule.npz", "out", "file to write"),
        flag("overwrite", "replace a file that is there"),
    ]
    given = parse(fields, "rlgen import-rule", ABOUT, args)
    if not given.arrays or not given.description:
        raise ValueError("name two files: rlgen import-rule ARRAYS DESCRIPTION --out rule.npz")
    from rlgen.algos.rules import files, import_groove

    out = Path(given.out)
    if out.suffix != ".npz":
        raise ValueError(f"--out {out}: rules are written as .npz")
    if out.exists() and not given.overwrite:
        raise ValueError(f"{out} is there already; add --overwrite, or name another with --out")
    learned = import_groove.import_rule(given.arrays, given.description)
    files.save_rule(out, learned.rule, learned.params, learned.meta)
    print(f"{out}: a rule with a {learned.rule.core} of {learned.rule.hidden_size} units. Try it:")
    print(f"  rlgen eval {out} --suite gridworld/unseen")
    return 0
