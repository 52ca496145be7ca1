"""The command line as a Python function."""

from rlgen.cli import main


def rlgen(capsys, *args) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error of `rlgen ARGS`."""
    code = main.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err
