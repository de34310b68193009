"""Pages that hold the longest ids and causes, in a browser as narrow as a phone."""

import re
from collections.abc import Callable

from app.bootstrap import Services
from app.console.pages import static_file
from tests.acceptance.browser import chromium, needs_chromium
from tests.console.conftest import Visitor
from tests.factories.episodes import new_episode
from tests.factories.statements import Sql

LONGEST = "a" * 128
CAUSE = "encoder_error:" + "x" * 236
_WIDTH = "document.documentElement.scrollWidth"


@needs_chromium
def test_longest_words_do_not_widen_a_page(admin: Visitor, visitor: Callable[..., Visitor], services: Services, sql: Sql) -> None:
    bound = visitor("agent", LONGEST)
    services.episodes.store_many(LONGEST, [new_episode("x")])
    sql("UPDATE memory_system.embeddings_queue SET state = 'dead', retry_count = 5, last_error = %s, processed_at = now()", CAUSE)
    shown = [(admin, path) for path in ("/console/keys", "/console/audit", "/console/dead")] + [(bound, "/console/search")]
    with chromium() as browser:
        for who, path in shown:
            html = who.get(path).get_data(as_text=True)
            assert re.search(r"\w{128}", html), path
            page = browser.new_page(viewport={"width": 360, "height": 800})
            page.set_content(re.sub(r"<(link|script)[^>]*>", "", html))
            page.add_style_tag(content=static_file("console.css").decode())
            assert page.evaluate(_WIDTH) <= 360, path
            page.close()
