"""The command line as a function."""

from rlgen.cli import main


def rlgen(capsys, *args) -> tuple[int, str, str]:
    """Exit code, output and errors of `rlgen ARGS`."""
    code = main.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, err
