"""Which of several attempts is shown: the one that the record tells of, or the one that runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from disbatch.cli import dbutil
from disbatch.cli.cat import parse_tasks
from disbatch.cli.options import parse_run
from disbatch.cli.output import choose_output
from disbatch.cli.run_options import OutputOptions
from disbatch.engine.output_files import OutputDirectory
from disbatch.engine.output_packs import PackWriter
from disbatch.engine.output_writer import Done
from disbatch.model.errors import UsageError
from disbatch.model.pack import HEADER_SIZE, PIECE, About, End, Piece, parse_beginning, scan
from disbatch.model.statusline import Mark, format_line
from disbatch.model.task import Ending, Outcome, Reason
from disbatch.rundir import output_manifest
from disbatch.rundir.output_manifest import Before, Output, OutputFile, Renumbered, kept_before
from disbatch.rundir.saved_output import SavedOutput, read_lines
from disbatch.rundir.task_output import read_output

TASK = 7


def outcome(pid: int, out: int = 0, err: int = 0, code: int = 0, reason: Reason = Reason.NONE) -> Outcome:
    """Of an attempt; its times follow from the number of its shell."""
    begun = 1e9 + pid
    return Outcome(
        1, 0, pid, code, 1.0, begun + 0.123456, begun + 1.654321, out, b"", err, b"", reason=reason
    )


class Run:
    """The files of a run, and engines that write there."""

    def __init__(self, directory: Path, name: str, packed: bool, former: tuple[str, ...] = ()) -> None:
        self.name = name
        self.packed = packed
        self.directory = directory / "out"
        self.directory.mkdir(exist_ok=True)
        self.status = directory / f"{name}_status.txt"
        self.status.touch()
        self.told = OutputFile(str(self.directory), packed, 1000, name, list(former))
        self.engines: dict[str, PackWriter | OutputDirectory] = {}

    def engine(self, node: str, doubt: bool = False) -> PackWriter | OutputDirectory:
        """The one on that node."""
        directory, name = os.fsencode(self.directory), f"{self.name}-{node}"
        if name not in self.engines:
            self.engines[name] = (
                PackWriter(directory, About(self.name, node, name), pytest.fail)
                if self.packed
                else OutputDirectory(directory, name, lambda begun: not doubt, pytest.fail)
            )
        return self.engines[name]

    def attempt(
        self, node: str, pid: int, text: bytes, ended: Ending | None = Ending.OWN, doubt: bool = False
    ) -> None:
        """An attempt, numbered as its shell, prints `text` to stdout and ends, or not."""
        engine = self.engine(node, doubt)
        engine.write([Piece(TASK, pid, 0, 0, text)])
        if ended is not None:
            how = End.of(outcome(pid, len(text)))._replace(ending=ended)
            engine.write([Done(TASK, pid, how, ended is Ending.OWN, 0.0)])

    def record(self, node: str, pid: int, out: int, mark: Mark = Mark.TASK, code: int = 0) -> None:
        with self.status.open("ab") as file:
            file.write(format_line(TASK, 1, -1, b"x", node, outcome(pid, out, code=code), mark))

    def shown(self, stream: int = 0) -> bytes | None:
        kept = SavedOutput(self.told, {TASK}, read_lines(self.status, {TASK}))
        try:
            found = kept.find(TASK, stream)
            return None if found is None else b"".join(found.blocks)
        finally:
            kept.close()


@pytest.fixture(params=[False, True], ids=["files", "pack"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    return Run(tmp_path, "run", request.param)


def test_one_attempt(run: Run) -> None:
    assert run.shown() is None
    run.attempt("n1", 1, b"text")
    assert run.shown() == b"text", "not recorded yet"
    run.record("n1", 1, 4)
    assert run.shown() == b"text"
    assert run.shown(1) is None


def test_one_that_runs(run: Run) -> None:
    run.attempt("n1", 1, b"so far", ended=None)
    assert run.shown() == b"so far"


def test_the_second_runs_after_the_first_was_lost(run: Run) -> None:
    run.attempt("n1", 1, b"lost", ended=None)
    run.attempt("n2", 2, b"again", ended=None)
    assert run.shown() == b"again"
    run.engine("n2").write([Done(TASK, 2, End.of(outcome(2, 5)), True, 0.0)])
    run.record("n2", 2, 5)
    assert run.shown() == b"again"


def test_of_two_at_once_the_recorded_one_is_shown(run: Run) -> None:
    run.attempt("n2", 2, b"second")
    run.attempt("n1", 1, b"first", doubt=True)
    run.record("n1", 1, 5, Mark.SUPERSEDED)
    run.record("n2", 2, 6)
    assert run.shown() == b"second"


def test_or_the_first_if_that_one_counts(run: Run) -> None:
    run.attempt("n2", 2, b"second")
    run.attempt("n1", 1, b"first", doubt=True)
    run.record("n2", 2, 6, Mark.SUPERSEDED)
    run.record("n1", 1, 5)
    assert run.shown() == b"first"


def test_one_that_was_cancelled_after_it_had_failed_before(tmp_path: Path, run: Run) -> None:
    """-R runs it again in the same directory, and the user cancels it: that line counts."""
    Run(tmp_path, "former", run.packed).attempt("n1", 1, b"failed")
    run.attempt("n1", 2, b"cancelled", Ending.ORDERED)
    run.record("n1", 2, 9, code=-15)
    assert run.shown() == b"cancelled"


def test_what_is_recorded_as_silent_is_silent(run: Run) -> None:
    run.attempt("n1", 1, b"lost", ended=None)
    run.record("n2", 2, 0)
    assert run.shown() is None


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_skipped_task_shows_what_it_printed_then(
    tmp_path: Path, run: Run, packed: bool, elsewhere: bool
) -> None:
    """The former run kept its output in either way, in the same directory or in another one."""
    place = tmp_path / "then" if elsewhere else tmp_path
    place.mkdir(exist_ok=True)
    former = Run(place, "former", packed)
    former.attempt("n1", 1, b"then")
    former.record("n1", 1, 4)
    run.told = OutputFile(run.told.directory, run.packed, 1000, "run", [str(former.directory)])
    run.record("n1", 1, 4, Mark.SKIPPED)
    assert run.shown() == b"then"


def test_an_attempt_that_a_former_run_left_is_not_taken_for_one_that_runs(tmp_path: Path) -> None:
    Run(tmp_path, "former", True).attempt("n1", 5, b"killed", ended=None)
    run = Run(tmp_path, "run", True)
    assert run.shown() is None
    run.attempt("n1", 1, b"now", ended=None)
    assert run.shown() == b"now"


def test_an_end_that_found_no_room_is_made_up_for(tmp_path: Path) -> None:
    run = Run(tmp_path, "run", True)
    run.attempt("n1", 1, b"half of", ended=None)
    run.record("n1", 1, 70)
    assert run.shown() == b"half of"


@pytest.mark.parametrize("line", ["lost", "barrier", "cancelled"])
def test_lines_that_tell_of_no_attempt(run: Run, line: str) -> None:
    if line == "lost":
        run.record("n1", 0, 0, code=-100)
    elif line == "barrier":
        run.record("n1", 5, 0, Mark.BARRIER)
    else:
        run.record("n1", 0, 0, code=-15)
    assert run.shown() is None
    if line != "barrier":
        run.attempt("n1", 1, b"its last words", ended=None)
        assert run.shown() == b"its last words"


def test_what_lacks_of_a_file_is_told(tmp_path: Path) -> None:
    run = Run(tmp_path, "run", False)
    run.attempt("n1", 1, b"x" * 300)
    run.record("n1", 1, 900)
    kept = SavedOutput(run.told, {TASK}, read_lines(run.status, {TASK}))
    found = kept.find(TASK, 0)
    assert found is not None
    assert b"".join(found.blocks) == b"x" * 300
    assert found.lacks == 600 and not found.is_damaged


# ---- what dbutil cat tells ----


def shown_by_cat(run: Run, capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, output and words of `dbutil cat`."""
    output_manifest.write(run.status.with_name("run_output.json"), run.told)
    code = dbutil.main(["cat", "--run", str(run.status.with_name("run")), str(TASK)])
    return code, *capfd.readouterr()


@pytest.mark.parametrize(
    ("pid", "code", "reason", "words"),
    [
        (0, -15, Reason.CANCELLED, "cancelled before starting"),
        (0, -100, Reason.NOT_RUN, "not run: something that is needed was not available"),
        (0, -100, Reason.NONE, "never ran, or lost with the node: nothing is left"),
    ],
)
def test_cat_tells_why_there_is_nothing(
    run: Run, capfd: pytest.CaptureFixture[str], pid: int, code: int, reason: Reason, words: str
) -> None:
    ended = outcome(pid, code=code, reason=reason)
    run.status.write_bytes(format_line(TASK, 1, -1, b"x", "n1", ended))
    assert shown_by_cat(run, capfd) == (2, "", f"dbutil: task {TASK}: {words}\n")


def test_cat_shows_what_a_cancelled_task_had_printed(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    run.attempt("n1", 1, b"half of it")
    ended = outcome(1, out=10, code=-15, reason=Reason.CANCELLED)
    run.status.write_bytes(format_line(TASK, 1, -1, b"x", "n1", ended))
    assert shown_by_cat(run, capfd) == (0, "half of it", "")


def test_cat_of_a_cancelled_task_that_had_printed_nothing(
    run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = outcome(1, code=-15, reason=Reason.CANCELLED)
    run.status.write_bytes(format_line(TASK, 1, -1, b"x", "n1", ended))
    assert shown_by_cat(run, capfd) == (0, "", f"dbutil: task {TASK}: nothing printed to stdout\n")


# ---- what was damaged after it was kept ----

LONG = b"0123456789" * 60
"""Below the limit of the runs here."""


def overwrite(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def piece_at(path: Path, text: bytes) -> int:
    """Where a piece of this length begins in a pack."""
    data = path.read_bytes()
    begin = parse_beginning(data)
    assert begin is not None
    found = scan(lambda at, size: data[at : at + size], begin[1], len(data))
    return next(at for at, header in found if header.kind == PIECE and header.length == len(text))


def cut_inside(path: Path, text: bytes) -> None:
    os.truncate(path, piece_at(path, text) + HEADER_SIZE + 3)


def cut_off(path: Path, text: bytes) -> None:
    os.truncate(path, piece_at(path, text))


def hurt_payload(path: Path, text: bytes) -> None:
    overwrite(path, piece_at(path, text) + HEADER_SIZE + 3)


def hurt_header(path: Path, text: bytes) -> None:
    overwrite(path, piece_at(path, text) + 20)


def hurt_beginning(path: Path, text: bytes) -> None:
    overwrite(path, 3)


@pytest.mark.parametrize("indexed", [True, False], ids=["index", "no index"])
@pytest.mark.parametrize("mark", [Mark.TASK, Mark.SKIPPED])
@pytest.mark.parametrize("text", [LONG, b"z" * 5000], ids=["plain", "compressed"])
@pytest.mark.parametrize("damage", [cut_inside, cut_off, hurt_payload, hurt_header, hurt_beginning])
def test_a_damaged_pack_is_told_of(
    damage: Callable[[Path, bytes], None],
    text: bytes,
    mark: Mark,
    indexed: bool,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run = Run(tmp_path, "run", True)
    run.told = OutputFile(str(run.directory), True, 100_000, "run", [])
    run.attempt("n1", 1, text)
    run.record("n1", 1, len(text), mark)
    (pack,) = run.directory.glob("*.pack")
    damage(pack, text)
    if not indexed:
        pack.with_suffix(".index").unlink()
    code, out, err = shown_by_cat(run, capfd)
    assert text.decode() not in out
    assert err.startswith(f"dbutil: task {TASK}: ") and err.count("\n") == 1
    # Without its index a pack that is cut looks like one that nothing else was written to.
    if indexed or damage not in (cut_inside, cut_off):
        assert code == 1 and f"{pack} is damaged" in err
    else:
        assert code == 2 and f"are not in {run.directory}" in err


def test_of_a_pack_that_is_damaged_elsewhere_nothing_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, "run", True)
    run.engine("n1").write([Piece(TASK + 1, 5, 0, 0, LONG)])
    run.attempt("n1", 1, b"text")
    run.record("n1", 1, 4)
    (pack,) = run.directory.glob("*.pack")
    hurt_payload(pack, LONG)
    assert shown_by_cat(run, capfd) == (0, "text", "")


@pytest.mark.parametrize("mark", [Mark.TASK, Mark.SKIPPED])
def test_a_file_that_was_cut_is_told_of(
    mark: Mark, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, "run", False)
    run.attempt("n1", 1, LONG)
    run.record("n1", 1, len(LONG), mark)
    path = run.directory / "000/000/000000007.out"
    os.truncate(path, 100)
    lost = "500 of its 600 bytes of stdout could not be kept"
    assert shown_by_cat(run, capfd) == (
        *(1, LONG[:100].decode()),
        f"dbutil: task {TASK}: {lost}, or {path} is damaged\n",
    )


def test_a_program_gets_no_damaged_output_for_a_whole_one(tmp_path: Path) -> None:
    run = Run(tmp_path, "run", True)
    run.attempt("n1", 1, LONG)
    run.record("n1", 1, len(LONG))
    (pack,) = run.directory.glob("*.pack")
    output_manifest.write(tmp_path / "run_output.json", run.told)
    assert read_output(str(tmp_path / "run"), TASK) == LONG
    hurt_payload(pack, LONG)
    with pytest.raises(UsageError, match=f"{pack} is damaged"):
        read_output(str(tmp_path / "run"), TASK)


def test_a_torn_line_and_other_lines_do_not_count(run: Run) -> None:
    run.attempt("n1", 1, b"text")
    run.status.write_bytes(b"what\tis\tthis\n\n\t\t\n" + run.status.read_bytes())
    run.record("n1", 1, 4)
    data = run.status.read_bytes()
    assert read_lines(run.status, {TASK})[TASK].pid == 1
    run.status.write_bytes(data[:-1])
    assert read_lines(run.status, {TASK}) == {}


def test_no_file_is_waited_for_or_followed_into_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path, "run", False)
    run.attempt("n1", 1, b"text")
    path = run.directory / "000/000/000000007.out"
    path.unlink()
    os.mkfifo(path)
    assert run.shown() in (b"", None)


# ---- the file that tells where ----


@pytest.mark.parametrize("directory", ["/a b/ä", os.fsdecode(b"/\xff\xfe"), "/" + "x" * 3000])
def test_the_output_file_is_read_as_it_was_written(directory: str, tmp_path: Path) -> None:
    output = Output(os.fsencode(directory), True, 5000)
    told = OutputFile.of(
        output, Path("/run"), Before(["/f", directory], [Renumbered("/s", ["/g", directory])])
    )
    path = tmp_path / "run_output.json"
    output_manifest.write(path, told)
    assert output_manifest.read(path) == told and told.output == output
    with pytest.raises(UsageError, match="File exists"):
        output_manifest.write(path, told)
    names = [str(tmp_path / "run_status.txt"), "no", "no_status.txt"]
    assert kept_before(names, by_command=False) == Before([directory, "/f"], told.renumbered)
    kept = kept_before(names, by_command=True)
    assert kept == Before([], [Renumbered(names[0], [directory, "/f"]), *told.renumbered])
    assert kept.has_renumbered("/f/../g/") and not kept.has_renumbered("/h")


def test_an_output_file_of_the_version_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run_output.json"
    path.write_text('{"directory": "/d", "packed": false, "limit": 5000, "run": "/run", "former": ["/f"]}')
    assert output_manifest.read(path) == OutputFile("/d", False, 5000, "/run", ["/f"], [])


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"directory": 5}', b"\xff", b"[" * 100_000, b" " * (2 << 20)]
)
def test_an_output_file_that_is_none(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x_output.json"
    path.write_bytes(data)
    with pytest.raises(UsageError, match="is not a file that a run wrote"):
        output_manifest.read(path)


# ---- what is asked for ----


def test_options_of_output() -> None:
    options = parse_run(["--output", "out", "--output-pack", "--output-limit", "10k", "T"])
    assert options.output == OutputOptions("out", True, 10240)
    assert parse_run(["T"]).output is None
    for size, value in {"1024": 1024, "64M": 64 << 20, "2G": 2 << 30, "1T": 1 << 40}.items():
        output = parse_run(["--output", "o", "--output-limit", size, "T"]).output
        assert output is not None and output.limit == value


@pytest.mark.parametrize(
    "words",
    [
        "--output-pack T",
        "--output-limit 5M T",
        *(
            f"--output o --output-limit {size} T"
            for size in ("0", "1023", "-5", "5Q", "M", "1.5M", "9" * 20, "99999T")
        ),
    ],
)
def test_refused_options_of_output(words: str) -> None:
    with pytest.raises(UsageError, match="--output"):
        parse_run(words.split())
    with pytest.raises(UsageError, match="the name is empty"):
        parse_run(["--output", "", "T"])


@pytest.mark.parametrize("made", ["000/013/000000005.out", "n1_0-ab.pack"])
def test_a_directory_of_another_run_is_refused(made: str, tmp_path: Path) -> None:
    options = parse_run(["--output", "out", "T"]).output
    chosen = choose_output(options, str(tmp_path), goes_on=False, here=True)
    assert chosen == Output(os.fsencode(tmp_path / "out"), False, 64 << 20)
    assert (tmp_path / "out").is_dir()
    (tmp_path / "out" / "2024").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    assert choose_output(options, str(tmp_path), goes_on=False, here=False) == chosen
    path = tmp_path / "out" / made
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with pytest.raises(UsageError, match="--output out: holds the output of another run"):
        choose_output(options, str(tmp_path), goes_on=False, here=True)
    assert choose_output(options, str(tmp_path), goes_on=True, here=True) == chosen


def test_where_tasks_have_other_numbers_a_directory_of_its_own_is_taken(tmp_path: Path) -> None:
    def chosen(words: str, before: Before) -> str:
        options = parse_run([*words.split(), "--output", "out", "-r", "x", "T"])
        output = choose_output(
            *(options.output, str(tmp_path)),
            goes_on=True,
            here=True,
            by_command=options.resume.by_command,
            before=before,
            jobid="7",
        )
        assert output is not None
        return str(Path(os.fsdecode(output.directory)).relative_to(tmp_path))

    out = tmp_path / "out"
    others = Before([], [Renumbered("s", [str(out)])])
    assert chosen("--resume-by command", Before([], [])) == "out"
    assert chosen("", Before([str(out)], [])) == "out"
    assert chosen("--resume-by command", others) == "out/run-7"
    assert chosen("", others) == "out/run-7"
    assert chosen("", Before([str(out / "run-5")], others.renumbered)) == "out/run-5"
    for used in (out / "000" / "000", out / "run-7" / "000" / "000"):
        used.mkdir(parents=True)
    assert chosen("--resume-by command", Before([], [])) == "out/run-7-2"


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    for name in ("out", "out/below"):
        options = parse_run(["--output", name, "T"]).output
        with pytest.raises(UsageError, match=f"--output {name}: "):
            choose_output(options, str(tmp_path), goes_on=True, here=True)


@pytest.mark.parametrize(
    ("words", "tasks"), [(["5"], [5]), (["3-5", "1"], [3, 4, 5, 1]), (["0"], [0]), (["7-7"], [7])]
)
def test_tasks_to_show(words: list[str], tasks: list[int]) -> None:
    assert parse_tasks(words) == tasks


@pytest.mark.parametrize("words", [["x"], ["5-3"], ["-1"], [""], ["1" * 30], ["0-99999999"], ["0-60000"] * 2])
def test_tasks_that_cannot_be_shown(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_tasks(words)
