"""The frame of the report: one HTML page and its style sheet. It needs no script and asks for nothing outside."""

from __future__ import annotations

from string import Template

__all__ = ["PAGE", "STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f6f7f9; --ink: #1f2429; --soft: #5d6570; --line: #dde1e6;
  --blue: #0072b2; --orange: #c45200; --grey: #868c95;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --panel: #1c2026; --ink: #e6e9ed; --soft: #9ba4af; --line: #30363e;
    --blue: #56b4e9; --orange: #f0883e; --grey: #868c95;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .75rem; letter-spacing: -.01em; }
h2 { font-size: 1.2rem; margin: 3rem 0 .35rem; padding-top: 1.25rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
p { margin: .35rem 0 .9rem; max-width: 46rem; }
.lead { font-size: 1.125rem; }
.soft, figcaption .seed, .scores { color: var(--soft); }
.soft { font-size: .92rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { padding: .5rem .9rem .5rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { font-weight: 600; color: var(--soft); font-size: .82rem; }
tbody th { font-weight: 600; }
.num { text-align: right; }
.better { color: var(--blue); font-weight: 600; }
.worse { color: var(--orange); font-weight: 600; }
.undecided { color: var(--soft); }
.track {
  position: relative; display: inline-block; width: 9rem; height: 1rem; vertical-align: -.15rem; margin-right: .6rem;
}
.track i { position: absolute; top: 50%; }
.track .rail { left: 0; right: 0; border-top: 1px solid var(--line); }
.track .even { left: 50%; top: 0; height: 100%; border-left: 1px solid var(--grey); }
.track .range { height: .45rem; margin-top: -.225rem; background: currentColor; opacity: .35; border-radius: 2px; }
.track .dot { width: .6rem; height: .6rem; margin: -.3rem 0 0 -.3rem; background: currentColor; border-radius: 50%; }
.pairs { display: grid; gap: 1.1rem; margin: 1rem 0; }
.pairs { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.pairs > *, .two > *, .plots > * { min-width: 0; }
.pair { margin: 0; padding: .85rem; background: var(--panel); border-radius: 8px; }
.pair figcaption {
  font-size: .93rem; font-weight: 600; line-height: 1.35; min-height: 2.7em; margin-bottom: .5rem;
  overflow-wrap: anywhere;
}
.pair figcaption .seed { font-weight: 400; white-space: nowrap; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; font-size: .82rem; line-height: 1.4; }
.two img { display: block; width: 100%; height: auto; border-radius: 4px; background: var(--line); }
.two img.strip, .many img.strip { margin-top: .25rem; border-radius: 2px; }
.rows { display: grid; gap: 1.1rem; margin: 1rem 0; }
.many { display: flex; flex-wrap: wrap; gap: .6rem; font-size: .82rem; line-height: 1.4; }
.many > div { width: 12rem; }
.many img { display: block; width: 100%; height: auto; border-radius: 4px; background: var(--line); }
.warning { border-left: 4px solid var(--orange); background: var(--panel); padding: .6rem .9rem; max-width: 46rem; }
.side { font-weight: 600; margin-top: .35rem; }
.side.base { color: var(--orange); } .side.aligned { color: var(--blue); }
.dots { letter-spacing: .1em; }
.scores { margin: .6rem 0 0; font-size: .82rem; width: 100%; }
.scores td { padding: .2rem .5rem 0 0; border: 0; }
.plots { display: grid; gap: 1.5rem; margin: 1rem 0; }
.plots { grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.plots figure { margin: 0; }
.plots figcaption { font-weight: 600; font-size: .95rem; }
svg.plot { display: block; width: 100%; height: auto; max-width: 40rem; }
svg.plot * { stroke-linejoin: round; stroke-linecap: butt; }
pre {
  background: var(--panel); border-radius: 8px; padding: .85rem 1rem; overflow-x: auto;
  font-size: .85rem; line-height: 1.45;
}
.facts { display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: flex-start; }
summary { cursor: pointer; }
li { margin: .3rem 0; max-width: 46rem; }
@media (max-width: 40rem) { main { padding-top: 1.5rem; } .track { width: 6rem; } }
@media print { .pair { break-inside: avoid; } }
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
<p class="lead">$lead</p>
$body
</main>
</body>
</html>
""")
