"""How the report looks; part of the page, so that it needs no second file."""

STYLE = """
:root { --ink: #22262b; --faint: #6b7280; --line: #e5e7eb; --blue: #2563c9; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f7f9; color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "Liberation Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
main.broad { max-width: 2000px; }
h1 { font-size: 27px; margin: 0 0 2px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 0 0 8px; }
h3 { font-size: 15px; margin: 20px 0 6px; text-transform: capitalize; }
p { margin: 0 0 12px; max-width: 80ch; }
.note, figcaption, small { color: var(--faint); }
.note { font-size: 13px; max-width: none; }
section, .card { background: #fff; border: 1px solid var(--line); border-radius: 10px; }
section { padding: 20px 22px; margin-top: 18px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 10px; margin-top: 14px; }
.card { padding: 12px 14px; display: flex; flex-direction: column; }
.card span { font-size: 12.5px; color: var(--faint); }
.card b { font-size: 23px; font-weight: 650; letter-spacing: -0.01em; }
.card small { font-size: 12px; line-height: 1.3; }
.wide { overflow-x: auto; margin-bottom: 14px; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid var(--line); vertical-align: bottom; }
th { font-weight: 600; color: var(--faint); font-size: 12.5px; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.wide th:first-child, .wide td:first-child { position: sticky; left: 0; background: #fff; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 14px; }
main.broad .charts { grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); }
svg { width: 100%; height: auto; }
svg text { font-size: 11.5px; fill: #6b7280; }
svg text.title { font-size: 13px; font-weight: 600; fill: #22262b; }
figure { margin: 0 0 16px; overflow-x: auto; }
img { display: block; max-width: 100%; image-rendering: pixelated; }
figcaption { font-size: 12px; }
details summary { cursor: pointer; color: var(--blue); font-size: 13.5px; margin: 10px 0; }
.settings table { width: auto; min-width: 460px; }
.settings td:last-child { font-family: ui-monospace, monospace; }
code { background: #f0f1f4; padding: 1px 5px; border-radius: 4px; }
"""

__all__ = ["STYLE"]
