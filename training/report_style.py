"""The style sheet of reports, light and dark, for a wide screen and for a phone."""

STYLE = """\
:root {
  --page: #f4f5f7; --card: #ffffff; --line: #dfe2e8; --text: #1b1f27; --muted: #5b6472; --track: #e9ebf0;
  --s0: #1f6feb; --s1: #d9580b; --s2: #0f8a6a; --s3: #8a4bd0; --base: #7c8594;
  --good: #12743f; --bad: #b3261e; --hit: 31, 111, 235; --miss: 217, 88, 11; --on-strong: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1217; --card: #181c23; --line: #2d333d; --text: #e7eaf0; --muted: #a0a9b8; --track: #2a303a;
    --s0: #5b9bff; --s1: #ff9a57; --s2: #4cc9a4; --s3: #bd93f9; --base: #8f99a9;
    --good: #5fd391; --bad: #ff8a80; --hit: 45, 110, 220; --miss: 205, 95, 30; --on-strong: #ffffff;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--text); font-size: 15px; line-height: 1.45;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", "PingFang SC", sans-serif;
}
main { max-width: 1180px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 4px; }
header p, .note { color: var(--muted); margin: 0; font-size: 13px; }
pre {
  margin: 10px 0 0; padding: 8px 12px; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px;
}
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px;
  margin-top: 16px;
}
section > .note { margin-bottom: 8px; }
section.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 12px;
  background: none; border: 0; padding: 0;
}
section.tiles.figures { grid-template-columns: repeat(auto-fit, minmax(155px, 1fr)); }
section.tiles.figures .value { font-size: 22px; margin-bottom: 4px; white-space: normal; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 14px 16px; }
.tile h2 { font-size: 13px; font-weight: 600; color: var(--muted); }
.tile .value {
  margin: 0 0 8px; font-size: 28px; line-height: 1.15; font-weight: 650; white-space: nowrap;
  font-variant-numeric: tabular-nums;
}
.tile table { width: 100%; font-size: 13px; }
.tile th, .tile td { padding: 0; border: 0; }
.tile th { font-weight: 400; color: var(--muted); white-space: normal; line-height: 1.25; padding-right: 8px; }
.tile td { vertical-align: bottom; }
.tile .bar-row { padding: 0 0 6px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(290px, 100%), 1fr)); gap: 16px; }
figure { margin: 8px 0 0; max-width: 460px; min-width: 0; }
figcaption { font-size: 14px; font-weight: 600; margin-bottom: 4px; }
svg { display: block; width: 100%; height: auto; }
svg .tick { fill: var(--muted); font-size: 11px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--base); stroke-width: 1; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg polyline.series-0 { stroke: var(--s0); }
svg polyline.series-1 { stroke: var(--s1); }
svg polyline.series-2 { stroke: var(--s2); }
svg polyline.series-3 { stroke: var(--s3); }
svg line.baseline { stroke: var(--base); stroke-width: 2; stroke-dasharray: 5 4; }
svg polyline.baseline { stroke: var(--base); stroke-dasharray: 5 4; }
svg polyline.raw { stroke-width: 1; opacity: 0.3; }
svg circle.series-0 { fill: var(--s0); }
svg circle.dot { opacity: 0.45; }
svg rect.series-0 { fill: var(--s0); }
svg circle.series-1 { fill: var(--s1); }
svg circle.series-2 { fill: var(--s2); }
svg circle.series-3 { fill: var(--s3); }
.legend {
  list-style: none; display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 4px 0 0; padding: 0; font-size: 13px;
}
.legend li { display: flex; align-items: center; gap: 6px; color: var(--muted); }
.swatch { width: 16px; height: 0; border-top: 3px solid var(--s0); }
.swatch.series-1 { border-color: var(--s1); }
.swatch.series-2 { border-color: var(--s2); }
.swatch.series-3 { border-color: var(--s3); }
.swatch.baseline { border-top: 2px dashed var(--base); }
.scroll { overflow-x: auto; margin: 0 -16px -4px; padding: 0 16px 4px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--muted); font-weight: 500; font-size: 13px; }
tbody tr:last-child > * { border-bottom: 0; }
td.text { text-align: left; color: var(--muted); }
th.text, td.good, td.bad { text-align: left; }
.numbers, .stages { width: 100%; }
.numbers td { width: 20%; min-width: 84px; }
.numbers td:last-child { width: 12%; min-width: 64px; }
.counted td { width: 16%; }
.counted td:nth-last-child(-n+3) { width: 8%; min-width: 52px; }
.numbers tbody th { white-space: normal; overflow-wrap: anywhere; min-width: 90px; }
.numbers .total > * { border-top: 2px solid var(--line); }
.artifacts thead th { white-space: normal; vertical-align: bottom; line-height: 1.25; }
.stages .wide { width: 65%; min-width: 90px; }
.stages th { white-space: normal; }
.bar { display: block; height: 6px; border-radius: 3px; background: var(--track); overflow: hidden; }
.numbers .bar { margin-top: 3px; height: 4px; }
.bar > span { display: block; height: 100%; border-radius: 3px; background: var(--s0); }
.bar > .baseline { background: var(--base); }
.good { color: var(--good); }
.bad { color: var(--bad); }
.badge {
  padding: 0 7px; border: 1px solid var(--line); border-radius: 9px; color: var(--muted);
  font-size: 12px; font-weight: 500; white-space: nowrap;
}
.matrix { font-size: 13px; border-collapse: separate; border-spacing: 2px; }
.matrix th, .matrix td { border: 0; padding: 0; }
.matrix td { width: 38px; min-width: 34px; height: 30px; text-align: center; border-radius: 4px; color: var(--text); }
.matrix td.hit { background: rgba(var(--hit), var(--share)); }
.matrix td.miss { background: rgba(var(--miss), var(--share)); }
.matrix td.strong { color: var(--on-strong); }
.matrix thead th { vertical-align: bottom; text-align: center; color: var(--text); padding-bottom: 4px; }
.matrix thead th span { writing-mode: vertical-rl; max-height: 150px; overflow: hidden; }
.matrix thead .corner { color: var(--muted); font-weight: 400; padding-right: 8px; }
.matrix th[scope=row] {
  position: sticky; left: 0; background: var(--card); text-align: right; padding: 0 8px 0 0; font-weight: 500;
  max-width: 150px; overflow: hidden; text-overflow: ellipsis;
}
.errors { list-style: none; margin: 8px 0 0; padding: 0; display: grid; gap: 10px; }
.errors .verdict { margin: 0; font-size: 14px; }
.errors blockquote {
  margin: 2px 0 0; padding: 6px 10px; border-left: 3px solid var(--line); color: var(--muted); font-size: 13px;
  white-space: pre-wrap; overflow-wrap: anywhere; max-height: 9em; overflow-y: auto;
}
.errors .verdict, .errors .question, .errors .tagged, .errors .choices { overflow-wrap: anywhere; }
.errors .question { margin: 0; font-size: 14px; font-weight: 600; }
.errors .tagged { margin: 0 0 4px; font-size: 14px; line-height: 1.7; }
.errors .choices { margin: 2px 0 0; padding-inline-start: 24px; font-size: 13px; color: var(--muted); }
mark { padding: 1px 4px; border-radius: 4px; color: var(--text); }
mark.hit { background: rgba(var(--hit), 0.22); }
mark.miss { background: rgba(var(--miss), 0.3); }
mark small { margin-inline-start: 4px; color: var(--muted); font-size: 11px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 8px 32px; }
summary { cursor: pointer; font-weight: 600; font-size: 14px; }
dl {
  display: grid; grid-template-columns: fit-content(45%) minmax(0, 1fr); gap: 2px 14px; margin: 6px 0 0;
  font-size: 13px;
}
dl.figures { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr) 70px); }
dl.figures dd { text-align: right; padding-inline-end: 12px; }
dt { color: var(--muted); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
@media (max-width: 480px) {
  main { padding: 16px 10px 32px; }
  section { padding: 14px 12px; }
  .scroll { margin: 0 -12px -4px; padding: 0 12px 4px; }
  .numbers { font-size: 13px; }
  .numbers th, .numbers td { padding: 5px 0 5px 8px; }
  .numbers th:first-child { padding-left: 0; }
  .numbers tbody th { min-width: 84px; }
  .numbers td { min-width: 58px; }
  .numbers td:last-child { min-width: 52px; }
}
@media print { body { background: none; } section, .tile { break-inside: avoid; } }
"""
