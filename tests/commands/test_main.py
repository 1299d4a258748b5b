"""The command `flowlab` itself: help, a greeting, speed, and consoles that cannot show every sign."""

import io
import os
import re
import subprocess
import sys

import pytest

import flowlab
from flowlab import commands
from flowlab.commands import main
from flowlab.commands.console import SIGNS, forgiving


def said(*arguments, encoding="utf-8"):
    """Standard output of a command in a process of its own, as on a console of that encoding; it must succeed."""
    script = "import sys; from flowlab.commands import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-X", "utf8=0", "-c", script, *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode(encoding, "replace")
    return done.stdout.decode(encoding)


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = capsys.readouterr().out
    assert "flowlab lab 5" in out
    for name in re.findall(r"^  flowlab ([\w-]+)", out, re.M):
        with pytest.raises(SystemExit, match="0"):
            main([name, "--help"])
        assert f"examples:\n  flowlab {name}" in capsys.readouterr().out


def test_alone_it_greets_and_shows_the_way(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert f"flowlab {flowlab.__version__}" in out and "flowlab lab" in out and "flowlab --help" in out


def test_it_says_its_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"flowlab {flowlab.__version__}\n"


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_a_command_is_a_file_with_its_parser(name):
    module = commands.command(name)
    assert module.ABOUT and not module.ABOUT.endswith(".") and f"flowlab {name}" in module.EXAMPLES
    assert re.search(rf"^  flowlab {name}\b", commands.EXAMPLES, re.M)


@pytest.mark.parametrize("arguments", [[], ["--version"], ["--help"], ["train", "--help"], ["lab", "--help"]], ids=str)
def test_help_is_there_without_loading_torch(arguments):
    """Loading torch takes a second or so; what remains is Python's own start, against which it is measured."""
    script = f"import sys; sys.argv[1:] = {arguments}; from flowlab.commands import main\n"
    script += "try: main()\nexcept SystemExit: pass\n"
    script += "sys.stderr.write(' '.join(m for m in ('torch', 'numpy', 'matplotlib') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_help_takes_little_longer_than_python_itself():
    def cpu_seconds(*command):
        before = os.times()
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    script = "import sys; sys.argv[1:] = ['--help']; from flowlab.commands import main; main()"
    least = min(cpu_seconds("-c", script) for _ in range(3))
    assert least < min(cpu_seconds("-c", "import argparse") for _ in range(3)) + 0.2


# --- consoles -------------------------------------------------------------------------------------------------------

PLAIN = [
    [],
    ["--help"],
    *([name, "--help"] for name in commands.COMMANDS),
    ["progress"],
    ["progress", "4", "5"],
    ["inventory"],
    ["inventory", "--answers"],
    ["experiment"],
    ["train"],
    ["models"],
    ["models", "--json"],
    ["ablation", "--known"],
    ["evaluate", "mixture_mnist_five"],
]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "utf-8"])
def test_no_command_ends_because_a_console_lacks_a_sign(encoding, monkeypatch, tmp_path):
    """All commands that only print, on one stream after the other, each as strict as a redirected console is."""
    for arguments in PLAIN:
        streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for name in ("out", "err")}
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams["out"])
            patch.setattr(sys, "stderr", streams["err"])
            try:
                code = main(arguments)
            except SystemExit as end:
                code = end.code
        streams["out"].flush()
        text = streams["out"].buffer.getvalue().decode(encoding)
        assert code == 0 and len(text) > 10, (arguments, streams["err"].buffer.getvalue())
        assert streams["out"].errors == "strict", "what was set is set back"


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_process_of_its_own_spells_what_its_console_lacks(encoding):
    text = said("progress", "nice", encoding=encoding)
    assert "[ ] write a coupling layer" in text and "?" not in text


def test_errors_are_spelled_too(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stderr", stream)
    assert main(["evaluate", "σ²"]) == 1
    stream.flush()
    assert b"sigma2" in stream.buffer.getvalue()


def test_signs_are_spelled_by_what_ascii_has():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    assert all(text.isascii() for text in SIGNS.values())
    real = sys.stdout
    sys.stdout = stream
    try:
        with forgiving():
            print("λ ≤ 3 ± ½, é, x₁², ✔, 好")
    finally:
        sys.stdout = real
    stream.flush()
    assert stream.buffer.getvalue() == b"lambda <= 3 +- 1/2, e, x12, [x], ?\n"
