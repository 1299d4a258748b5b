"""The accessibility engine axe-core, injected into a page."""

from __future__ import annotations

import fetch_scripts

from flowlab.publish import scripts


def serious(page, *places: str) -> list[str]:
    """What the engine finds, in these places or on the whole page, that would keep somebody out."""
    fetch_scripts.need(fetch_scripts.AXE)
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(scripts.read(fetch_scripts.AXE, "axe.min.js"))
    for place in places:
        assert page.locator(place).count(), f"{place} is not on the page"
    where = "places.length ? { include: places.map(place => [place]) } : document"
    # No preloading: it fetches style sheets anew, which a page opened as a file may not.
    found = page.evaluate(f"(places) => axe.run({where}, {{ preload: false, resultTypes: ['violations'] }})", places)
    violations = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    return [f"{v['id']}: {node['html'][:300]}" for v in violations for node in v["nodes"]]
