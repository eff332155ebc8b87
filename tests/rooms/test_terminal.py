"""What others wrote, shown: nothing in it moves a cursor, runs in a spreadsheet or is markup."""

from __future__ import annotations

import ast
import csv
import io
import os
import subprocess
import sys
from pathlib import Path
from unicodedata import category

import pytest

from byzopt.cli import terminal
from byzopt.errors import Status
from byzopt.escaping import csv_text, markdown, markdown_cell, one_line, visible
from byzopt.experiments.specs.spec import MAIN
from byzopt.experiments.store.run_directory import RunDirectory
from byzopt.experiments.trials.outcome import Outcome

HOSTILE = "\x1b]0;title\x07\x1b[2Jred\x1b[31m\u202egnp.exe\u2066\r\x9b1A[/b][bold]:smile:"
SPEC = {"task": "quadratic", "rule": "mean", "n": 5, "f": 1, "rounds": 2, "lr": 0.1, "eval_every": 1}
PLAIN = {"\n", "\t"}


pytestmark = pytest.mark.usefixtures("here")


def obeyed(text: str) -> set[str]:
    return {c for c in text if category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in PLAIN}


@pytest.fixture
def store(tmp_path):
    """A store of two runs whose names and messages are hostile."""
    from byzopt.experiments import Spec

    for number, text in enumerate((HOSTILE, "=cmd|' /C calc'!A0")):
        spec = Spec.of(SPEC | {"seed": number, "compare": {text: {"rule": "median"}}})
        place = RunDirectory(tmp_path / "store" / f"run-{number}", spec)
        place.create()
        records = ({"t": 0, "loss": 1.0}, {"t": 2, "loss": -0.5})
        ended = Outcome(Status.DIVERGED, 2, 0.1, records, text)
        place.write_result({MAIN: ended, text: ended})
    return tmp_path / "store"


@pytest.mark.parametrize(
    "words",
    [
        ["query"],
        ["query", "--csv"],
        ["query", "--json"],
        ["query", "--columns", "message,variant"],
        ["report"],
    ],
    ids=" ".join,
)
def test_stored_text_reaches_no_terminal_as_it_is(words, byzopt, store):
    status, out, err = byzopt(words[0], str(store), *words[1:])
    assert status == 0
    assert not obeyed(out + err)


def test_hostile_names_of_variants_can_be_run_and_shown(byzopt, tmp_path):
    from byzopt.experiments.specs.toml import dumps

    compare = {name: {"rule": "median"} for name in (HOSTILE, "a[/b]", ":smile:")}
    (tmp_path / "spec.toml").write_text(dumps(SPEC | {"compare": compare}), "utf-8")
    for words in (["run", "spec.toml", "--out", "here"], ["run", "spec.toml", "--out", "here", "--json"]):
        status, out, err = byzopt(*words)
        assert status == 0
        assert not obeyed(out + err)
    out = byzopt("run", "spec.toml", "--out", "here")[1]
    assert " a[/b] " in out
    assert " :smile: " in out


def test_hostile_words_of_the_command_line_come_back_spelled_out(byzopt, tmp_path):
    for words in (["run", HOSTILE], ["run", "x.toml", "--set", HOSTILE], ["query", HOSTILE], [HOSTILE]):
        status, out, err = byzopt(*words)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert not obeyed(err)


def test_on_a_terminal_only_our_own_colours_are_sent(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal.Visible(out, needed=True))
    console = terminal.console()
    console.print(terminal.words(HOSTILE, "bold"))
    console.print(HOSTILE, style="red")
    text = out.getvalue()
    assert "\x1b[1m" in text
    assert text.count("\\x1b[2J") == 2
    assert "\x1b[2J" not in text
    assert "\u202e" not in text


def test_commands_print_through_the_terminal_only():
    folder = Path(terminal.__file__).parent
    for path in folder.glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert "Console" not in [call.id for call in calls if isinstance(call, ast.Name)], path


def test_every_character_that_is_obeyed_is_spelled_out_and_no_other():
    every = "".join(map(chr, range(0x110000)))
    shown = visible(every)
    assert obeyed(shown) == {"\u200c", "\u200d"}
    assert visible(shown) == shown
    assert visible("naïve — 中文 ∇ 🙂\tx\n") == "naïve — 中文 ∇ 🙂\tx\n"
    assert one_line("a\n b\r\x1bc") == "a b \\x1bc"


@pytest.mark.parametrize(
    ("cell", "stored"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd", "'+cmd"),
        ("-cmd", "'-cmd"),
        ("-1+2", "'-1+2"),
        ("@SUM(1)", "'@SUM(1)"),
        ("  =1", "'  =1"),
        ("＝1", "'＝1"),
        ("a;=1", "a;'=1"),
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        ("a\n=1", "a\\n=1"),
        ("\x1b[2J", "\\x1b[2J"),
        ("nnm >> krum(extra=1)", "nnm >> krum(extra=1)"),
        ("-", "-"),
        ("-1.5e-3", "-1.5e-3"),
        ("+2", "+2"),
        ("-1,234", "-1,234"),
        ("-inf", "-inf"),
        (-1.5, "-1.5"),
        (None, ""),
        (True, "True"),
    ],
)
def test_text_that_a_spreadsheet_runs_is_text_in_csv_and_numbers_are_numbers(cell, stored):
    assert list(csv.reader(io.StringIO(csv_text([["name", "x"], [cell, 1]])))) == [
        ["name", "x"],
        [stored, "1"],
    ]


def test_all_csv_of_a_store_is_harmless(byzopt, store):
    out = byzopt("query", str(store), "--csv")[1]
    assert byzopt("report", str(store))[0] == 0
    texts = [out, *(path.read_text("utf-8") for path in (store / "report").glob("*.csv"))]
    cells = [cell for text in texts for row in csv.reader(io.StringIO(text)) for cell in row]
    assert "'=cmd|' /C calc'!A0" in cells
    assert not [cell for cell in cells if cell[:1] in "=+@\t\r" and cell]
    assert "-0.5" in cells


def test_markdown_of_others_has_no_html_and_no_links_but_to_the_web():
    told = markdown("**a** `b` [w](https://a.b/c) [f](x/y.png) 2 < 3")
    assert told == "**a** `b` [w](https://a.b/c) [f](x/y.png) 2 < 3"
    for hostile in (
        "[x](javascript:alert(1))",
        "[x]( javascript:1)",
        "[x](<javascript:1>)",
        "[x](JaVaScript:1)",
        "[x](data:text/html,1)",
        "[x](//evil.com)",
        "[x\\](javascript:1)",
        "![x](javascript:1)",
        "[x]: javascript:1",
        "[x][y]",
    ):
        for shown in (markdown(hostile), markdown_cell(hostile)):
            assert "](" not in shown.replace("\\](", ""), shown
            assert "]:" not in shown.replace("\\]:", ""), shown
            assert "][" not in shown.replace("\\]\\[", ""), shown
    for hostile in ("<script>", "</td>", "<!-- ", "<?x", "<javascript:1>"):
        assert "<" not in markdown(hostile)
        assert "<" not in markdown_cell(hostile)
    assert markdown_cell("a|b\n| c") == "a\\|b \\| c"
    assert markdown_cell("a\\|b") == "a\\\\\\|b"


CLOSED = {
    "an ASCII terminal": ["", "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 PYTHONIOENCODING=ascii:strict"],
}
CLOSED_TOO = {
    "both": [">&- 2>&-", ""],
    "a reader that has gone": ["| head -c 1", ""],
    "stdout": [">&-", ""],
    "stderr": ["2>&-", ""],
    "stdin": ["<&-", ""],
    "ten columns": ["", "COLUMNS=10"],
}


@pytest.mark.parametrize(
    "case",
    [
        *(pytest.param(case, id=name) for name, case in CLOSED.items()),
        *(pytest.param(case, id=name, marks=pytest.mark.slow) for name, case in CLOSED_TOO.items()),
    ],
)
def test_streams_may_be_closed_or_narrow_or_poor(case, tmp_path):
    redirected, environment = case
    command = f"set -o pipefail; {environment} {sys.executable} -m byzopt list rules {redirected}"
    told = subprocess.run(
        ["bash", "-c", command], capture_output=True, cwd=tmp_path, env=os.environ, timeout=600
    )
    assert told.returncode == (1 if "head" in redirected else 0), told.stderr
    assert told.stderr == b""


@pytest.mark.slow
def test_a_full_disk_behind_stdout_is_one_line(tmp_path):
    command = f"{sys.executable} -m byzopt list rules > /dev/full"
    told = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert told.returncode == 1
    assert told.stderr.count("\n") == 1
    assert "Standard output should be writable. Found: No space left on device." in told.stderr


KILL = "import os, signal; os.kill(os.getpid(), signal.{})"
STOPPED = {  # a user's own file, in which the command is when the signal comes
    "an import": "{kill}\ndef make(cohort, seed): ...",
    "a call": "def make(cohort, seed):\n    {kill}",
    "a string that is run": "def make(cohort, seed):\n    exec('{kill}')",
}


SIGNALS = [
    pytest.param(place, number, marks=() if place == "a call" and number == "SIGTERM" else pytest.mark.slow)
    for place in STOPPED
    for number in ("SIGINT", "SIGTERM")
]


@pytest.mark.parametrize("place, number", SIGNALS)
def test_a_signal_ends_a_command_with_its_status_wherever_it_is(place, number, tmp_path):
    (tmp_path / "own.py").write_text(STOPPED[place].format(kill=KILL.format(number)))
    (tmp_path / "spec.toml").write_text('task = "own.py:make"\nrule = "mean"\nrounds = 1\nlr = 0.1\n')
    command = [sys.executable, "-m", "byzopt", "audit", "spec.toml"]
    told = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert told.stderr == "byzopt: interrupted; what was stored is kept\n"
    assert told.returncode == 130


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_at_the_end_changes_nothing(number):
    kill = f"import atexit; atexit.register(lambda: exec({KILL.format(number)!r}, {{}}))"
    code = f"{kill}; from byzopt.cli import main; main(['--version'])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (told.returncode, told.stderr) == (0, "")
