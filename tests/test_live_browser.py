"""The live page in a real browser: it grows with the search, ends as the whole of it, and no text of it runs."""

import asyncio
import time

import pytest
from browser import CHROMIUM, browser

from o1_reason import MCTS, BeamSearch, Budget, Proposals, Score, Step, Usage, search
from o1_reason.testing import RandomWorld
from o1_reason.view import Feed
from o1_reason.view.live import serving

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

EVIL = "<img src=x onerror=\"window.hacked=1;alert('img')\"><script>window.hacked=2</script>"
BEAM = BeamSearch(width=2, branch=2)
FACTS = "document.getElementById('facts').textContent"


@pytest.fixture
async def page(tmp_path):
    async with browser(tmp_path / "profile") as opened:
        yield opened
        assert opened.said("Runtime.exceptionThrown", "Page.javascriptDialogOpening") == []


class Stepwise:
    """A policy whose every step waits for leave; its texts are HTML. The third step from the question is the last."""

    def __init__(self):
        self.leave = asyncio.Semaphore(0)
        self.asked = 0

    async def propose(self, state, n, max_steps=1, *, temperature=None):
        self.asked += 1
        await self.leave.acquire()
        done = len(state.steps) == 2
        steps = [Step(f"{EVIL} {i}", done, f"{EVIL} {i}" if done else None, tokens=3) for i in range(n)]
        return Proposals(tuple((step,) for step in steps), Usage(1, 5, 3 * n))


class Judge:
    async def score(self, states):
        return [Score(((1 + int(state.steps[-1].text[-1])) / 10,)) for state in states]


async def test_the_page_grows_with_the_search_and_ends_as_the_whole_of_it(page):
    policy, feed = Stepwise(), Feed(EVIL)
    async with serving(feed) as live:
        running = asyncio.ensure_future(search(EVIL, policy, Judge(), BEAM, seed=0, on_event=feed.take))
        await page.open(live.url)
        await page.until("state === 'searching' && count === 1")
        assert "no answer yet" in await page.run(FACTS)

        policy.leave.release()
        await page.until("count === 5 && reward.filter(x => x !== null).length === 4")
        assert await page.run("children[0]") == [1, 2, 3, 4]
        assert f"{EVIL} 3" in await page.run("document.getElementById('panel').textContent"), (
            "first steps of the question"
        )

        await page.run("select(4, true)")
        policy.leave.release()
        await page.until("count > 5")
        await page.until("children[4].length > 0 || count > 8")
        assert await page.run("selected") == 4, "what the reader looks at stays"

        for _ in range(200):
            policy.leave.release()
        result = await running
        feed.end(result, 1.25)
        await page.until("!live")
        assert await page.run("[count, chosen, born]") == [len(result.tree), result.node, len(result.tree)]
        assert "1.25 s" in await page.run(FACTS)
        assert await page.run("visits.every(n => n !== null)"), "what only the end knows is there, too"
        assert await live.shown(5)
        tags = "document.querySelectorAll('img, script:not(:nth-last-child(-n+2)), iframe, object').length"
        assert await page.run(tags) == 0
        assert await page.run("window.hacked === undefined")
        base = live.url.rpartition("/")[0]
        asked = {event["params"]["request"]["url"] for event in page.said("Network.requestWillBeSent")}
        assert all(url.startswith(base) for url in asked)


async def test_the_replay_shows_scores_when_they_came(page):
    policy, feed = Stepwise(), Feed("q")
    for _ in range(200):
        policy.leave.release()
    result = await search("q", policy, Judge(), BEAM, on_event=feed.take)
    feed.end(result, 1)
    scored = feed.picture().columns["scored"]
    assert scored[1] == 5, "the first step was scored when all four were there"
    async with serving(feed) as live:
        await page.open(live.url)
        await page.until("waiting === false && width > 0")
        await page.run("setTime(4)")
        assert await page.run("[known(1), share(1)]") == [False, None]
        await page.run("setTime(5)")
        assert await page.run("[known(1), share(1)]") == [True, 0.1]
        await page.run("setTime(count)")
        assert await page.run("reward.every((x, i) => x === null || known(i))")


async def test_a_search_of_4096_nodes_is_followed_live(page):
    world, feed = RandomWorld(1, branch=8, depth=8), Feed("Which?")
    async with serving(feed) as live:
        await page.open(live.url)
        await page.until("state === 'searching'")
        started = time.monotonic()
        result = await search(
            "Which?", world, world, MCTS(simulations=6000, branch=8), Budget(max_nodes=4500), on_event=feed.take
        )
        assert len(result.tree) > 4096
        await page.until(f"count === {len(result.tree)}")
        assert time.monotonic() - started < 60
        assert await page.run("live && following")
        work = "(() => { const t = performance.now(); changed(), draw(); return performance.now() - t; })()"
        assert await page.run(work) < 1000, "one batch at this size"
        feed.end(result, 1)
        await page.until("!live")
        assert await page.run("chosen") == result.node


async def test_who_moves_the_view_is_left_there_and_fit_follows_again(page):
    policy, feed = Stepwise(), Feed("q")
    async with serving(feed) as live:
        running = asyncio.ensure_future(search("q", policy, Judge(), BEAM, on_event=feed.take))
        await page.open(live.url)
        policy.leave.release()
        await page.until("count === 5")
        await page.run("document.getElementById('in').click()")
        before = await page.run("JSON.stringify(view)")
        policy.leave.release()
        await page.until("count > 5")
        assert await page.run("JSON.stringify(view)") == before
        await page.run("document.getElementById('fit').click()")
        assert await page.run("following")
        feed.fail("PolicyError: the model is gone")
        await page.until("!live")
        assert (await page.run(FACTS)).startswith("PolicyError: the model is gone · no answer")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_lost_connection_is_said_and_the_tree_stays(page):
    policy, feed = Stepwise(), Feed("q")
    async with serving(feed) as live:
        running = asyncio.ensure_future(search("q", policy, Judge(), BEAM, on_event=feed.take))
        await page.open(live.url)
        policy.leave.release()
        await page.until("count === 5")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await page.until("state !== 'searching'")
    assert (await page.run(FACTS)).startswith("reconnecting")
    assert await page.run("count") == 5
