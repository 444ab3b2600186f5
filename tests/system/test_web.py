"""The web page in a real browser: a run that goes on, and runs that tests make up."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Shown, Tab
from command import Running, disbatch, gone, processes, status_file, write
from held_run import Held
from playwright.sync_api import Browser, Page, expect

from deadline import DEADLINE
from disbatch.model.text import duration, per_second, run_time, whole_seconds
from disbatch.model.view import LogRow
from disbatch.watch.web.security import MOST_STRANGERS
from disbatch.wire.descriptors import raise_limit
from disbatch.wire.verbs import Cancel, Drain, Finish, Pause, Stop, Unpause
from views import STARTED, engine, failure, view

pytestmark = pytest.mark.timeout(180)
STATES = {3: "lost", 17: "draining", 40: "starting", 41: "launching", 70: "left", 71: "left"}


def address(run: Running) -> str:
    """What a run printed."""
    run.until_said("web page: http://")
    return re.findall(r"web page: (http\S+)", run.err)[-1]


def fact(page: Page, name: str) -> str:
    return page.locator(f"[data-fact={name}] dd").inner_text().replace("\n", " ")


def cluster() -> list:
    """80 nodes, some of which are not well."""
    return [
        engine(
            n,
            16,
            9 if n == 17 else 0 if n in (40, 41, 70, 71) else 16 if n % 5 else 11,
            STATES.get(n, "active"),
        )
        for n in range(80)
    ]


@pytest.fixture
def shown(tmp_path: Path) -> Iterator[Shown]:
    with Shown(tmp_path / "P_status.txt") as server:
        yield server


# ---- a run that goes on ----


def test_a_run_from_its_beginning_to_its_end(browser: Browser, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    lines = ["echo no such star >&2; exit 3", *["read line < gate"] * 12]
    write(tmp_path / "Tasks", lines)
    options = ("-w", "-s", "localhost:2", "--wait-for-engines", "1000", "Tasks")
    with Running(tmp_path, *options, env={"WEB_TEST": tmp_path.name}) as run:
        printed = address(run)
        (file,) = tmp_path.glob("*_url.txt")
        assert file.read_text() == f"{printed}\n" and stat.S_IMODE(file.stat().st_mode) == 0o600
        with Tab(browser, printed) as tab:
            page = tab.page
            expect(page.locator("[data-fact=done] dd")).to_have_text("1of 13")
            expect(page.locator("#failures tbody tr")).to_contain_text("no such star")
            expect(page.locator("#kinds tbody tr")).to_have_count(1)
            expect(page.locator("#kinds tbody tr")).to_have_text(re.compile("^1 *exit 3 *0 *.*no such star$"))
            expect(page.locator("#running tbody tr")).to_have_count(2)
            os.write(gate, b"\n" * 4)
            expect(page.locator("[data-fact=done] dd")).to_have_text("5of 13")
            page.get_by_label("Text or task id").fill("SUCH STAR")
            page.get_by_role("button", name="Search").click()
            expect(page.locator("#found tbody tr")).to_have_count(1)
            page.get_by_role("button", name="Pause").click()
            page.locator("#yes").click()
            expect(page.locator("#mode")).to_have_text("paused")
            page.get_by_role("button", name="Resume").click()
            expect(page.locator("#mode")).to_have_text("running")
            page.get_by_role("button", name=re.compile("^Drain")).click()
            page.locator("#yes").click()
            expect(page.locator("#engines tbody tr")).to_have_attribute("data-state", "draining")
            expect(page.locator("#said")).to_contain_text("draining; 2 tasks are running there")
            os.write(gate, b"\n" * 2)
            expect(page.locator("#engines tbody tr")).to_have_attribute("data-state", "left")
            expect(page.locator("[data-fact=done] dd")).to_have_text("7of 13")
            expect(page.locator("#notice")).to_contain_text("waiting")
            page.get_by_role("button", name="Finish").click()
            page.locator("#yes").click()
            assert run.ended() == 3, run.err
            expect(page.locator("#mode")).to_have_text("over")
            assert page.locator("#notice").is_visible()
        assert not file.exists()
    os.close(gate)
    token = printed.partition("token=")[2]
    assert all(token not in path.read_text() for path in tmp_path.glob("*.txt"))
    gone(lambda: processes(f"WEB_TEST={tmp_path.name}"), "what the run started")


def ask(url: str, path: str, **headers: str) -> tuple[int, str]:
    """Without a browser."""
    connection = http.client.HTTPConnection(url.split("/")[2], timeout=DEADLINE)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(given.pop("method", "GET"), path, headers=given)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_who_is_refused(browser: Browser, tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["sleep 1000"])
    with Running(tmp_path, "-w", "-s", "localhost:1", "Tasks") as run:
        printed = address(run)
        token = printed.partition("?")[2]
        (file,) = tmp_path.glob("*_url.txt")
        for path in ("/", "/events", "/static/page.js", "/search", "/?token=", "/?token=x"):
            assert ask(printed, path)[0] == 403
        assert ask(printed, "/order", method="POST")[0] == 403
        assert ask(printed, f"/?{token}", host="evil.example.org")[0] == 421
        assert ask(printed, f"/?{token}", origin="http://evil.example.org")[0] == 403
        assert ask(printed, f"/?{token}")[0] == 200
        assert ask(printed, f"/?{token}")[0] == 403
        run.until(lambda: token not in file.read_text(), "another address")
        with Tab(browser, file.read_text().strip()) as tab:
            (cookie,) = tab.context.cookies()
            assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
            expect(tab.page.locator("#running tbody tr")).to_have_count(1)
            assert tab.page.evaluate("document.cookie") == ""


SLOW = (
    b"",
    b"GET / HT",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3,
    b"POST /order HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx",
)
"""What those say who want to keep others out."""


def test_slow_connections_of_strangers_keep_nobody_out(tmp_path: Path) -> None:
    raise_limit()
    write(tmp_path / "Tasks", ["sleep 1000"])
    with Running(tmp_path, "-w", "-s", "localhost:1", "Tasks") as run, contextlib.ExitStack() as held:
        printed = address(run)
        host, port = printed.split("/")[2].split(":")

        def crowd() -> None:
            for number in range(MOST_STRANGERS + 200):
                stranger = held.enter_context(socket.create_connection((host, int(port)), timeout=DEADLINE))
                with contextlib.suppress(OSError):
                    stranger.sendall(SLOW[number % len(SLOW)])

        crowd()
        owner = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
        owner.request("GET", f"/?{printed.partition('?')[2]}")
        answer = owner.getresponse()
        cookie = answer.headers["set-cookie"].partition(";")[0]
        assert answer.status == 200 and answer.read()
        events = http.client.HTTPConnection(host, int(port), timeout=DEADLINE)
        events.request("GET", "/events", headers={"cookie": cookie})
        stream = events.getresponse()
        assert stream.status == 200 and stream.readline().startswith(b"data: ")
        crowd()
        assert ask(printed, "/", cookie=cookie)[0] == 200
        run.process.send_signal(signal.SIGTERM)
        run.ended()
        assert b'"over":true' in stream.read()
        events.close()
        owner.close()


def test_another_driver_takes_the_run_over(browser: Browser, held: Held, tmp_path: Path) -> None:
    held.task(held=0)
    held.task()
    run = held.beginning("-w", "-s", "localhost:1")
    with run, Tab(browser, address(run)) as tab:
        expect(tab.page.locator("#running tbody tr")).to_have_count(1)
        held.kill(run)
        expect(tab.page.locator("#notice")).to_contain_text("driver")
        again = held.taking_over()
        again.until_said("web page: continues")
        expect(tab.page.locator("#notice")).to_be_hidden()
        held.let_go(0)
        expect(tab.page.locator("#mode")).to_have_text("over")
        assert fact(tab.page, "done").startswith("2")
        assert again.ended() == 0, again.err
    held.check(2)
    assert not (tmp_path / "P_url.txt").exists()


def test_it_cannot_listen_there(tmp_path: Path) -> None:
    write(tmp_path / "Tasks", ["touch ran"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = disbatch(tmp_path, "-w", "--web-address", f"127.0.0.1:{port}", "Tasks")
    assert done.returncode == 2 and f"--web-address 127.0.0.1:{port}: cannot listen there" in done.stderr
    assert (
        done.stderr.count("\n") == 1
        and not list(tmp_path.glob("*status*"))
        and not (tmp_path / "ran").exists()
    )


def test_a_page_that_is_killed_does_not_matter(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    write(tmp_path / "Tasks", ["cat gate"])
    with Running(tmp_path, "-w", "-s", "localhost:1", "Tasks", env={"WEB_TEST": tmp_path.name}) as run:
        address(run)
        (pid,) = [
            pid
            for pid in processes(f"WEB_TEST={tmp_path.name}")
            if b"web_page" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(pid, signal.SIGKILL)
        run.until_said("web page: ended")
        (tmp_path / "gate").write_text("")
        assert run.ended() == 0
    assert not list(tmp_path.glob("*_url.txt"))


# ---- how it looks ----


def test_eighty_nodes(browser: Browser, shown: Shown) -> None:
    shown.take(view(cluster()))
    large = {"width": 1200, "height": 1000}
    with Tab(browser, shown.address, viewport=large) as tab:
        expect(tab.page.locator("#engines tbody tr")).to_have_count(80)
        expect(tab.page.locator("#slots")).to_have_attribute("data-drawn", "1280")
        tab.picture("web-light", whole=False)
        tab.page.locator("#h-failures").scroll_into_view_if_needed()
        tab.page.evaluate("document.getElementById('h-failures').scrollIntoView()")
        tab.picture("web-failures", whole=False)
        state = tab.context.storage_state()
    plain = f"http://127.0.0.1:{shown.port}/"
    with Tab(browser, plain, viewport=large, color_scheme="dark", storage_state=state) as tab:
        expect(tab.page.locator("#slots")).to_have_attribute("data-drawn", "1280")
        tab.picture("web-dark", whole=False)
    phone = {"width": 380, "height": 800}
    with Tab(browser, plain, viewport=phone, storage_state=state, device_scale_factor=2) as tab:
        expect(tab.page.locator("#slots")).to_have_attribute("data-drawn", "1280")
        assert tab.page.evaluate("document.documentElement.scrollWidth") == 380
        assert tab.page.get_by_role("button", name="Drain node000").is_visible()


def test_numbers_are_written_as_on_the_terminal(browser: Browser, shown: Shown) -> None:
    shown.take(view(cluster(), number=1, rate=0.5, remaining=59.7))
    numbers = [0, 0.004, 0.34, 0.9996, 1, 9.96, 12.34, 59.4, 59.7, 245.2, 7384.4, 90061.0]
    rates = [
        (rate, beside) for rate in (0, 1e-5, 0.0123, 0.5, 1, 12.34, 1250.4) for beside in (None, 3.2, 0.4)
    ]
    with Tab(browser, shown.address) as tab:
        expect(tab.page.locator("[data-fact=rate] dd")).to_have_text("30.0/min")
        assert fact(tab.page, "waiting") == f"{25_000 - 9_001 - view(cluster()).running:,}"
        assert fact(tab.page, "left") == "1:00"
        assert re.fullmatch(r"15:0\d", fact(tab.page, "seconds"))
        expect(tab.page.locator("#engines tbody tr").first.locator("td").nth(4)).to_have_text("120/min")
        written = tab.page.evaluate(
            """async ([numbers, rates]) => {
                const words = await import("/static/words.js");
                const times = [words.duration, words.wholeSeconds, words.runTime];
                return [times.map((f) => numbers.map(f)), rates.map((each) => words.perSecond(...each))];
            }""",
            [numbers, rates],
        )
    times = [[f(number) for number in numbers] for f in (duration, whole_seconds, run_time)]
    assert written == [times, [per_second(*each) for each in rates]]


def test_a_run_that_is_paused_or_ending(browser: Browser, shown: Shown) -> None:
    shown.take(view(cluster(), paused=True, remaining=None))
    with Tab(browser, shown.address) as tab:
        expect(tab.page.locator("#mode")).to_have_text("paused")
        assert fact(tab.page, "left") == "–"
        shown.take(view(cluster(), number=2, mode="ending", remaining=None))
        expect(tab.page.locator("#mode")).to_have_text("ending")
        assert fact(tab.page, "waiting") == "700"


def test_without_scripts(browser: Browser, shown: Shown) -> None:
    shown.take(view(cluster(), paused=True))
    with Tab(browser, shown.address, java_script_enabled=False) as tab:
        page = tab.page
        assert "9,001 of 25,000" in page.locator("#facts").inner_text()
        assert page.locator("#mode").inner_text() == "paused"
        assert page.locator("#engines tbody tr").count() == 80
        assert "did not converge" in page.locator("#failures").inner_text()
        assert 'http-equiv="refresh" content="5"' in page.content()
        assert not page.locator("#finish").is_visible() and not page.locator("#slots").is_visible()


def test_ten_thousand_slots(browser: Browser, shown: Shown) -> None:
    """They are all drawn once, and then only the nodes that changed."""
    shown.take(view([engine(n, 125, 100) for n in range(80)]))
    with Tab(browser, shown.address) as tab:
        expect(tab.page.locator("#slots")).to_have_attribute("data-drawn", "10000")
        tab.page.evaluate(
            """() => {
                window.rectangles = 0;
                const draw = CanvasRenderingContext2D.prototype.fillRect;
                CanvasRenderingContext2D.prototype.fillRect = function (...where) {
                    window.rectangles += 1;
                    draw.apply(this, where);
                };
            }"""
        )
        for number in range(2, 12):
            shown.take(view([engine(n, 125, 100 - (n == number) * 50) for n in range(80)], number))
        expect(tab.page.locator("#engines tbody tr").nth(11)).to_contain_text("50 of 125")
        expect(tab.page.locator("#engines tbody tr").nth(10)).to_contain_text("100 of 125")
        # Each view changes two nodes; several may be drawn at once.
        assert 0 < tab.page.evaluate("window.rectangles") <= 10 * 2 * 130
        tab.picture("web-slots", whole=False)


@pytest.mark.parametrize(("nodes", "slots"), [(1, 1), (1, 64), (3, 2000), (10_000, 1)])
def test_clusters_of_other_shapes(browser: Browser, shown: Shown, nodes: int, slots: int) -> None:
    shown.take(view([engine(n, slots) for n in range(nodes)]))
    with Tab(browser, shown.address) as tab:
        expect(tab.page.locator("#slots")).to_have_attribute("data-drawn", str(nodes * slots))
        assert tab.page.locator("#engines tbody tr").count() == min(nodes, 200)
        box = tab.page.locator("#slots").bounding_box()
        assert box is not None and 0 < box["height"] < 700 and box["width"] <= 1200
        tab.picture(f"shape-{nodes}-{slots}", whole=False)


def test_what_hostile_names_and_output_do(browser: Browser, shown: Shown) -> None:
    bad = "<script>alert(1)</script><img src=x onerror=alert(1)>&amp;\u202e"
    rows = [engine(0)]
    failures = [failure(1, command=bad + "{id}")]
    log = [LogRow(1, STARTED, bad)]
    shown.take(view(rows, name=bad, jobid=bad, notice=bad, failures=failures, log=log))
    with Tab(browser, shown.address) as tab:
        expect(tab.page.locator("#failures code")).to_have_text(bad.replace("\u202e", "\\u202e") + "42")
        assert tab.page.locator("h1").inner_text().startswith("<script>")
        assert tab.page.locator("img").count() == 0
        state = tab.context.storage_state()
    with Tab(
        browser, f"http://127.0.0.1:{shown.port}/", java_script_enabled=False, storage_state=state
    ) as tab:
        assert tab.page.locator("img").count() == 0 and "onerror" in tab.page.locator("h1").inner_text()


# ---- what it does ----


def test_nothing_is_known_yet(browser: Browser, shown: Shown) -> None:
    with Tab(browser, shown.address) as tab:
        expect(tab.page.locator("#mode")).to_have_text("waiting for the driver")
        expect(tab.page.locator("#finish")).to_be_disabled()
        shown.take(view([engine(0)]))
        expect(tab.page.locator("#mode")).to_have_text("running")
        expect(tab.page.locator("#finish")).to_be_enabled()
        shown.take(view([engine(0, running=0, state="left")], 2, mode="over"), over=True)
        expect(tab.page.locator("#mode")).to_have_text("over")
        expect(tab.page.locator("#finish")).to_be_disabled()
        expect(tab.page.locator("#pause")).to_be_disabled()


def test_orders_are_asked_about_first(browser: Browser, shown: Shown) -> None:
    shown.take(view([engine(0), engine(1)]))
    with Tab(browser, shown.address) as tab:
        page = tab.page
        for name in ("Drain node001", "Stop node000", "Cancel task 9002", "Pause", "Finish"):
            page.get_by_role("button", name=name).click()
            page.get_by_role("button", name="Back").click()
            page.get_by_role("button", name=name).click()
            page.keyboard.press("Escape")
        assert shown.orders == []
        names = ("Drain node001", "Stop node000", "Cancel task 9002", "Pause", "Finish")
        for number, name in enumerate(names, 1):
            page.get_by_role("button", name=name).click()
            if name == "Stop node000":
                tab.picture("web-ask", whole=False)
            page.locator("#yes").click()
            expect(page.locator("#said p")).to_have_count(number)
        expect(page.locator("#said")).to_contain_text("finish: done")
        shown.take(view([engine(0), engine(1)], 2, paused=True))
        page.get_by_role("button", name="Resume").click()
        expect(page.locator("#said")).to_contain_text("unpause: done")
    assert shown.orders == [
        Drain(["e1"]),
        Stop(["e0"]),
        Cancel([(9002, 9002)]),
        Pause(),
        Finish(),
        Unpause(),
    ]


def test_with_the_keyboard_alone(browser: Browser, shown: Shown) -> None:
    shown.take(view([engine(0), engine(1, running=3)]))
    with Tab(browser, shown.address) as tab:
        page = tab.page
        expect(page.locator("#slots")).to_have_attribute("data-drawn", "32")
        page.locator("#slots").focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        expect(page.locator("#tip")).to_have_text("node001: 3 of 16 slots busy, active")
        expect(page.locator("#slots")).to_have_attribute("aria-label", "node001: 3 of 16 slots busy, active")
        page.keyboard.press("Enter")
        expect(page.locator("#engines tbody tr")).to_have_count(1)
        page.locator("#filter").fill("")
        page.get_by_role("button", name="busy slots").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#engines tbody th").first).to_have_text("node000")
        page.keyboard.press("Enter")
        expect(page.locator("#engines tbody th").first).to_have_text("node001")
        page.get_by_role("button", name="Stop node001").focus()
        shown.take(view([engine(0, running=1), engine(1, running=4)], 2))
        expect(page.locator("[data-fact=running] dd")).to_have_text("5")
        page.keyboard.press("Enter")  # the button has kept the focus
        expect(page.locator("#question")).to_have_text("Stop node001?")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#said")).to_contain_text("stop: done")
    assert shown.orders == [Stop(["e1"])]


def test_everything_has_a_name_for_those_who_do_not_see_it(browser: Browser, shown: Shown) -> None:
    shown.take(view(cluster()[:4]))
    with Tab(browser, shown.address) as tab:
        expect(tab.page.locator("#slots")).to_have_attribute("data-drawn", "64")
        nameless = tab.page.evaluate(
            """() => [...document.querySelectorAll("button, input, section, [role=img], [role=progressbar]")]
                .filter((e) => e.checkVisibility() && !e.ariaLabel && !e.getAttribute("aria-labelledby"))
                .filter((e) => !e.labels?.length && !e.textContent.trim())
                .map((e) => e.outerHTML)"""
        )
        assert nameless == []
        bar = tab.page.get_by_role("progressbar")
        assert bar.get_attribute("aria-valuenow") == "36.0"


def test_the_server_goes_away_and_the_page_says_so(browser: Browser, tmp_path: Path) -> None:
    with Shown(tmp_path / "P_status.txt") as shown:
        shown.take(view([engine(0)]))
        tab = Tab(browser, shown.address)
        expect(tab.page.locator("#engines tbody tr")).to_have_count(1)
    with tab:
        expect(tab.page.locator("#notice")).to_contain_text("does not answer")
        tab.errors.clear()  # that is one


def test_search_in_a_long_file(browser: Browser, shown: Shown, tmp_path: Path) -> None:
    write(tmp_path / "Tasks", [f"echo star {n} >&2" for n in range(150)])
    done = disbatch(tmp_path, "-s", "localhost:2", "Tasks")
    assert done.returncode == 0
    status_file(tmp_path).rename(tmp_path / "P_status.txt")
    shown.take(view([engine(0)]))
    with Tab(browser, shown.address) as tab:
        page = tab.page
        page.get_by_label("Text or task id").fill("star 14")
        page.keyboard.press("Enter")
        expect(page.locator("#search-said")).to_have_text("11 found, newest first")
        page.get_by_label("Text or task id").fill("star")
        page.keyboard.press("Enter")
        expect(page.locator("#search-said")).to_have_text("100 found, newest first; there may be more")
        page.get_by_role("button", name="Search on").click()
        expect(page.locator("#search-said")).to_have_text("150 found, newest first")
        page.get_by_label("failed only").check()
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Search", exact=True).click()
        expect(page.locator("#search-said")).to_have_text("nothing found")
