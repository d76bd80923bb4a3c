"""The page of a search in a real browser: fast at 4,096 nodes, and no text of a search ever runs."""

import json
import time

import pytest
from browser import CHROMIUM, browser

from o1_reason import MCTS, Budget, Step, Tree, search
from o1_reason.testing import RandomWorld
from o1_reason.view import frame, read, render

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

EVIL = "<img src=x onerror=\"window.hacked=1;alert('img')\"><script>window.hacked=2;alert('s')</script></script><!--"
LOOK = "document.getElementById('tree').toDataURL()"


@pytest.fixture
async def page(tmp_path):
    async with browser(tmp_path / "profile") as opened:
        yield opened
        assert opened.said("Runtime.exceptionThrown", "Page.javascriptDialogOpening") == []


@pytest.fixture
async def big(tmp_path):
    """The page of a search with more than 4,096 nodes, and the search."""
    world = RandomWorld(1, branch=8, depth=8)
    result = await search("Which?", world, world, MCTS(simulations=6000, branch=8), Budget(max_nodes=4500))
    assert len(result.tree) > 4096
    assert result.node is not None
    file = tmp_path / "big.html"
    file.write_text(result.tree.to_html(result.node), encoding="utf-8")
    return file, result


async def where(page, node, inside=0.5):
    """A place on the screen: `inside` the card of a node, from its left end (0) to its right (1)."""
    script = f"""(() => {{ const b = box({node}), c = canvas.getBoundingClientRect();
        return [c.left + b.x + b.w * {inside}, c.top + b.mid]; }})()"""
    return await page.run(script)


async def panel(page):
    return await page.run("document.getElementById('panel').innerText")


async def still(page):
    """Wait until the picture has stopped moving."""
    before = None
    while before != (before := await page.run(f"new Promise(done => setTimeout(() => done({LOOK}), 120))")):
        pass


async def test_a_tree_of_4096_nodes_is_drawn_explored_folded_and_replayed(page, big):
    file, result = big
    tree = result.tree
    started = time.monotonic()
    await page.open(file)
    await page.until("waiting === false && width > 0")
    assert time.monotonic() - started < 20
    frames = (
        "(() => { const t = performance.now(); for (let k = 0; k < 5; k++) draw(); return performance.now() - t; })()"
    )
    assert await page.run(frames) < 5000, "five frames of the whole tree"
    assert await page.run("document.title") == "Which? – search tree"
    assert f"Step {result.node}" in await panel(page), "it opens at the chosen answer"
    assert result.answer in await page.run("document.getElementById('facts').innerText")

    wide = max(tree.nodes[0].children, key=lambda i: len(list(tree.walk(i))))
    inside = sum(1 for _ in tree.walk(wide))
    await page.click(*await where(page, wide, 0.3))
    text = await panel(page)
    assert f"Step {wide}" in text
    assert tree.nodes[wide].step.text in text
    assert f"{inside - 1} steps" in text.replace(",", "")

    whole = await page.run("rows")
    await page.click(*await where(page, wide, 1))
    assert await page.run("rows") == whole - sum(1 for node in tree.walk(wide) if not node.children) + 1
    await still(page)
    await page.click(*await where(page, wide, 1))
    assert await page.run("rows") == whole, "folded, it could still be seen and clicked"
    await page.run("document.getElementById('focus').click()")
    assert await page.run("rows") < whole / 4

    await still(page)
    before = await page.run(LOOK)
    await page.run("document.getElementById('play').click()")
    await page.until(f"born > 50 && born < {len(tree)}")
    assert await page.run(LOOK) != before
    await page.run("document.getElementById('play').click()")
    stopped = await page.run("born")
    assert f"step {stopped - 1} of {len(tree) - 1}" == await page.run("document.getElementById('clock').innerText")
    await page.run("$('time').value = 5, $('time').dispatchEvent(new Event('input'))")
    assert await page.run("born") == 5
    await page.run("document.getElementById('unfold').click()")
    await still(page)
    children = tree.nodes[0].children
    seen = await page.run(f"{children}.map(box).map(b => ctx.getImageData(b.x + 2, b.mid, 1, 1).data[3] > 0)")
    assert seen == [i < 5 for i in children]
    assert {True, False} <= set(seen)


async def test_the_keys_walk_the_tree_and_find_steps(page, big):
    file, result = big
    tree = result.tree
    await page.open(file)
    await page.run("canvas.focus()")
    path = tree.path(result.node)
    await page.key("Home")
    assert "Question" in await panel(page)
    for i in path[1:]:
        await page.key("ArrowRight")
        assert f"Step {i}\n" in await panel(page), "right follows the best path"
    await page.key("ArrowLeft")
    assert f"Step {path[-2]}\n" in await panel(page)
    await page.key("Home")
    await page.key("ArrowRight")
    level = tree.levels[1]
    for key, step in (("ArrowDown", 1), ("ArrowUp", -1)):
        at = await page.run("selected")
        await page.key(key)
        there = level.index(at) + step
        assert await page.run("selected") == (level[there] if 0 <= there < len(level) else at)
    await page.key("Home")
    rows = await page.run("rows")
    await page.key("Enter")
    assert (rows > 1, await page.run("rows")) == (True, 1)

    await page.key("/")
    for letter in tree.nodes[result.node].step.text:
        await page.key(letter)
    words = tree.nodes[result.node].step.text
    hits = [node.id for node in tree.nodes[1:] if words in node.step.text]
    assert await page.run("hits") == hits
    await page.key("Enter")
    assert await page.run("selected") == hits[0]
    assert await page.run("document.getElementById('hits').innerText") == f"1 of {len(hits)}"
    await page.until(f"(() => {{ const b = box({hits[0]}); return b.h > 10 && b.y > 0 && b.y < height; }})()")


def evil():
    tree = Tree(EVIL)
    for parent, text, terminal in ((0, EVIL, False), (1, EVIL + "!", True), (0, "dead", False)):
        tree.add(
            parent, Step(text, terminal=terminal, answer=EVIL if terminal else None, key="k" if terminal else None)
        )
    for node in tree.nodes[1:]:
        node.reward, node.critique = 0.5, EVIL
    tree.kill(tree.nodes[3], EVIL)
    return {
        "tree": tree.to_data(), "node": 2, "answer": EVIL, "stop": EVIL, "ranking": [[EVIL, EVIL]], "confidence": EVIL,
        "usage": {"cost_usd": EVIL}, "policy_usage": {"completion_tokens": EVIL, "prompt_tokens": EVIL},
        "verifier_usage": {"completion_tokens": EVIL, "prompt_tokens": EVIL}, "seconds": EVIL,
    }  # fmt: skip


async def test_no_text_of_a_search_runs_and_all_of_it_is_shown(page, tmp_path):
    file = tmp_path / "evil.html"
    file.write_text(render(read(evil())), encoding="utf-8")
    await page.open(file)
    await page.until("waiting === false && width > 0")
    tags = "document.querySelectorAll('img, script:not(:nth-last-child(-n+2)), iframe, object').length"
    for node in range(4):
        await page.run(f"select({node}, true)")
        await still(page)
        shown = await page.run("[...document.querySelectorAll('#panel .step')].map(e => e.textContent)")
        assert shown == [[EVIL], [EVIL] * 2, [EVIL + "!", EVIL], ["dead", EVIL]][node]
        x, y = await where(page, node)
        await page.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        assert EVIL in await page.run("document.getElementById('tip').textContent")
        assert await page.run(tags) == 0
    assert f"Dead end: {EVIL}" in await page.run("document.querySelector('.why').textContent")
    assert await page.run("document.getElementById('question').textContent") == EVIL
    assert EVIL in await page.run("document.getElementById('facts').textContent")
    assert await page.run("window.hacked === undefined")
    asked = [event["params"]["request"]["url"] for event in page.said("Network.requestWillBeSent")]
    assert asked == [file.as_uri()]


async def test_the_page_could_load_and_run_nothing_even_if_told(page, big):
    await page.open(big[0])
    await page.run(
        """new Promise(done => { window.refused = [];
        document.addEventListener('securitypolicyviolation', e => refused.push(e.effectiveDirective));
        const script = document.createElement('script'); script.textContent = 'window.hacked = 1';
        const image = document.createElement('img'); image.src = 'http://127.0.0.1:9/x.png';
        const button = document.createElement('button'); button.setAttribute('onclick', 'window.hacked = 2');
        document.body.append(script, image, button); button.click();
        fetch('http://127.0.0.1:9/').catch(() => setTimeout(done, 200)); })"""
    )
    assert sorted(await page.run("refused")) == ["connect-src", "img-src", "script-src-attr", "script-src-elem"]
    assert await page.run("window.hacked === undefined")


async def test_in_a_notebook_it_runs_in_a_frame_that_cannot_touch_what_is_around(page, tmp_path):
    file = tmp_path / "notebook.html"
    shown = frame(render(read(evil())))
    file.write_text(f"<meta charset=utf-8><script>var count = 'mine'</script>{shown}", encoding="utf-8")
    await page.open(file)
    top = await page.run("count")
    contexts = [event["params"]["context"]["id"] for event in page.said("Runtime.executionContextCreated")]
    found = [
        (await page.call("Runtime.evaluate", expression=script, contextId=contexts[-1], returnByValue=True))["result"]
        for script in (
            "[count, width > 0, document.getElementById('panel').innerText.startsWith('Step 2')]",
            "(() => { try { return top.document.title } catch (e) { return e.name } })()",
        )
    ]
    assert [each["value"] for each in found] == [[4, True, True], "SecurityError"]
    assert (top, await page.run("[count, window.hacked === undefined]")) == ("mine", ["mine", True])
    assert json.loads(await page.run("JSON.stringify(Object.keys(window).filter(k => k === 'view'))")) == []
