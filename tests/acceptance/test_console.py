"""The console in a real browser on the real stack: searched, a dead row replayed and found; by keyboard, on a phone, in the dark."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal
from uuid import UUID

import psycopg2
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from app.stack.layout import Layout, State
from tests.acceptance.browser import chromium, needs_chromium, watched
from tests.acceptance.conftest import RunningStack

pytestmark = needs_chromium

AGENT = "console-alice"
PAGES = ("/console/", "/console/search", "/console/episodes", "/console/dead", "/console/integrity", "/console/keys", "/console/audit")
DEAD_TEXT = "The heron waits by the weir until the fish come up."
CAUSE = "encoder_error: MemoryError"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def signed_in(stack: RunningStack, browser: Browser) -> Any:
    """What an administrator's browser keeps: one may sign in ten times a minute only."""
    with watched(browser, stack.base_url) as seen:
        sign_in(seen.page, stack.admin_key)
        return seen.page.context.storage_state()


@pytest.fixture
def dead_episode(stack: RunningStack) -> Iterator[UUID]:
    """An episode whose row died before any worker saw it: stored and given up in one transaction. Its agent is forgotten afterwards."""
    layout = Layout(stack.settings.data_dir)
    connection = psycopg2.connect(
        host="127.0.0.1",
        port=State.read(layout).postgres_port,
        user="postgres",
        password=layout.postgres_password_file.read_text().strip(),
        dbname="nexus_memory",
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO nexus_memory.zep_episodic_memory (agent_id, content, actor, session_id) VALUES (%s, %s, 'Ines', 'river')"
            " RETURNING episode_id",
            (AGENT, DEAD_TEXT),
        )
        ((episode_id,),) = cursor.fetchall()
        cursor.execute(
            "UPDATE memory_system.embeddings_queue SET state = 'dead', retry_count = 5, last_error = %s, processed_at = now()"
            " WHERE target_id = %s",
            (CAUSE, episode_id),
        )
    connection.close()
    yield UUID(str(episode_id))
    with stack.client() as client:
        client.delete(f"/agents/{AGENT}").raise_for_status()


def sign_in(page: Page, key: str) -> None:
    page.goto("/console/")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Memory")


def search(page: Page, query: str, mode: str) -> None:
    page.goto("/console/search")
    page.get_by_label("Agent", exact=True).fill(AGENT)
    page.get_by_label("Looking for").fill(query)
    page.get_by_label("By", exact=True).select_option(mode)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#found")).to_be_focused()


def test_dead_row_is_replayed_and_found_by_its_meaning(stack: RunningStack, browser: Browser, dead_episode: UUID) -> None:
    question = "a bird standing near a river dam"
    with watched(browser, stack.base_url) as seen:
        page = seen.page
        sign_in(page, stack.admin_key)

        search(page, question, "vector")
        expect(page.locator("#results")).not_to_contain_text(DEAD_TEXT)
        search(page, "heron weir", "hybrid")
        hit = page.locator(".result").filter(has_text=DEAD_TEXT)
        expect(hit).to_contain_text("vector dead")
        expect(hit.locator(".breakdown")).to_contain_text("Words")

        hit.get_by_role("link", name="Open").click()
        expect(page.locator(".life")).to_contain_text(f"5 attempts, and none succeeded. Last error: {CAUSE}.")

        page.goto("/console/dead")
        row = page.get_by_role("row").filter(has_text=str(dead_episode))
        expect(row).to_contain_text(AGENT)
        page.get_by_role("button", name=re.compile(f"Replay .* of {CAUSE}")).click()
        expect(page.get_by_role("status").first).to_contain_text("new set of attempts")
        expect(page.locator("main")).not_to_contain_text(str(dead_episode))

        def is_embedded() -> bool:
            page.goto(f"/console/episodes/{dead_episode}?agent_id={AGENT}")
            return "Found by its meaning too" in page.locator(".life").inner_text()

        for _ in range(120):
            if is_embedded():
                break
            page.wait_for_timeout(250)
        search(page, question, "vector")
        best = page.locator(".result").first
        expect(best).to_contain_text(DEAD_TEXT)
        expect(best.locator(".breakdown")).to_contain_text("Meaning")
        shares = [float(text) for text in best.locator(".breakdown td:last-child").all_inner_texts()]
        assert sum(shares) == pytest.approx(float(best.locator(".score b").inner_text()), abs=0.005)
        assert seen.problems == []


def test_keyboard_alone_is_enough(stack: RunningStack, browser: Browser) -> None:
    with watched(browser, stack.base_url) as seen:
        page = seen.page
        page.goto("/console/")
        page.keyboard.type(stack.admin_key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_contain_text("Memory")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        page.goto("/console/keys")
        stops = []
        for _ in range(60):
            page.keyboard.press("Tab")
            stop = page.evaluate(
                "[document.activeElement.textContent.trim().slice(0, 30) || document.activeElement.id,"
                " getComputedStyle(document.activeElement).outlineStyle]"
            )
            if stop[0] == "API":
                break
            stops.append(stop)
        names = [name for name, _ in stops]
        assert names[:2] == ["Skip to the content", "NEXUS Cerebro"]
        assert {"Overview", "Audit", "Sign out", "name", "agent_id", "Create the key"} <= set(names)
        assert {outline for _, outline in stops} <= {"solid", "auto"}, "focus is always seen"
        page.get_by_role("button", name="Sign out").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("status").first).to_contain_text("signed out")
        assert seen.problems == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "light"), (1280, "dark"), (360, "dark")])
def test_every_page_is_sound(
    width: int, scheme: Literal["light", "dark"], stack: RunningStack, browser: Browser, signed_in: Any, dead_episode: UUID
) -> None:
    with watched(browser, stack.base_url, width, scheme) as stranger:
        stranger.page.goto("/console/")
        found = {"/console/sign-in": stranger.audit()}
    with watched(browser, stack.base_url, width, scheme, storage_state=signed_in) as seen:
        for path in (*PAGES, f"/console/episodes/{dead_episode}?agent_id={AGENT}"):
            seen.page.goto(path)
            for details in seen.page.locator("details").all():
                details.evaluate("element => element.open = true")
            found[path] = seen.audit()
        search(seen.page, "heron weir", "hybrid")
        found["results"] = seen.audit()
        assert {path: wrong for path, wrong in found.items() if wrong} == {}
        assert seen.problems == []


def test_overview_refreshes_itself_until_it_is_paused(stack: RunningStack, browser: Browser, signed_in: Any) -> None:
    with watched(browser, stack.base_url, storage_state=signed_in) as seen:
        page = seen.page
        page.goto("/console/")
        with page.expect_response("**/console/live/queue", timeout=15_000) as answer:
            pass
        assert answer.value.status == 200
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.get_by_role("button", name="Pause updates").click()
        page.evaluate("htmx.trigger('#queue', 'every'); htmx.trigger('#health', 'every')")
        page.wait_for_timeout(300)
        assert asked == []
        page.get_by_role("button", name="Resume updates").click()
        with page.expect_response("**/console/live/health"):
            page.evaluate("htmx.trigger('#health', 'every')")
        assert seen.problems == []


def _refuse(status: int, route: Route) -> None:
    route.fulfill(status=status, body="<p>no</p>")


def test_overview_says_when_it_is_out_of_date(stack: RunningStack, browser: Browser, signed_in: Any) -> None:
    with watched(browser, stack.base_url, storage_state=signed_in) as seen:
        page = seen.page
        page.goto("/console/")
        for refusal in (503, 429):
            page.route("**/console/live/health", partial(_refuse, refusal))
            page.evaluate("htmx.trigger('#health', 'every')")
            expect(page.locator("#health")).to_have_class(re.compile("out-of-date"))
            expect(page.locator("#announcement")).to_contain_text("out of date")
            expect(page.locator("#health")).to_contain_text("PostgreSQL")
            page.unroute("**/console/live/health")
            page.evaluate("htmx.trigger('#health', 'every')")
            expect(page.locator("#health")).not_to_have_class(re.compile("out-of-date"))
            expect(page.locator("#announcement")).to_contain_text("Memory works")


def test_session_that_ends_meanwhile_leads_to_sign_in(stack: RunningStack, browser: Browser) -> None:
    with stack.client() as client, watched(browser, stack.base_url) as seen:
        made = client.post("/keys", json={"role": "operator", "name": "short"}).raise_for_status().json()
        sign_in(seen.page, made["key"])
        client.delete(f"/keys/{made['key_id']}").raise_for_status()
        seen.page.evaluate("htmx.trigger('#health', 'every')")
        expect(seen.page.get_by_role("heading", level=1)).to_have_text("Sign in to the console")
        expect(seen.page.get_by_role("status").first).to_contain_text("session has ended")


def test_link_from_another_site_opens_the_console_signed_in(stack: RunningStack, browser: Browser, signed_in: Any) -> None:
    """As one in a dashboard or a mail: the browser keeps a strict cookie back on the first request."""
    with watched(browser, stack.base_url, storage_state=signed_in) as seen:
        seen.page.goto("/console/")
        seen.page.goto(stack.base_url.replace("127.0.0.1", "localhost") + "/docs")
        seen.page.evaluate("url => { location.href = url }", f"{stack.base_url}/console/dead")
        expect(seen.page.get_by_role("heading", level=1)).to_have_text("Dead rows")


def test_what_is_stored_runs_no_script(stack: RunningStack, browser: Browser, signed_in: Any) -> None:
    hostile = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script> kettle"
    with stack.client(AGENT) as client, watched(browser, stack.base_url, storage_state=signed_in) as seen:
        client.post("/memory/action", json={"content": hostile, "actor": hostile[:128], "tags": [hostile[:128]]}).raise_for_status()
        seen.page.goto("/console/")
        search(seen.page, "kettle", "keyword")
        expect(seen.page.locator(".result").first).to_contain_text(hostile)
        seen.page.get_by_role("link", name="Open").first.click()
        expect(seen.page.locator(".prose")).to_contain_text(hostile)
        assert seen.page.title() != "owned"
        assert seen.problems == []
        client.delete(f"/agents/{AGENT}").raise_for_status()


def test_watch_notices_what_is_wrong(stack: RunningStack, browser: Browser) -> None:
    """The checks above would fail if there were something to find."""
    with watched(browser, stack.base_url) as seen:
        seen.page.goto("/console/sign-in")
        assert seen.audit() == []
        seen.page.evaluate(
            """() => {
              const main = document.querySelector('main');
              main.innerHTML += '<h1>x</h1><h3>y</h3><input><p id="pale">z</p><p id="pale">z</p><button></button>'
                + '<table><th>t</th></table><svg></svg><p aria-labelledby="nothing" style="color: red">w</p>';
              main.style.minWidth = '3000px';
              document.getElementById('pale').style.color = '#aaa';
            }"""
        )
        found = "; ".join(seen.audit())
        for wrong in (
            "3000 px wide",
            "one h1",
            "skips a level",
            "no label",
            "no name",
            "says nothing",
            "no scope",
            "two have",
            "not there",
            "contrast",
        ):
            assert wrong in found
        assert any("Content Security Policy" in problem for problem in seen.problems), "a style in a page is refused"
