"""The style sheet of the page: light and dark, wide and narrow, screen and paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --quiet: #4a525c; --line: #c9ced6; --card: #f3f5f8;
  --link: #0a4fb3; --yes: #0b6b4f; --partly: #8a5200; --no: #a82a00; --unknown: #4a525c;
  --ready: #2ca07a; --noncompliant: #e6a700; --bounce: #e0662a; --defer: #d18bb3;
  --dim: #a3abb5; --first: #0072b2; --second: #b45f06; --shade: #1b1f2455;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --ink: #e8ebef; --quiet: #b4bcc6; --line: #434b55; --card: #1f242a;
    --link: #8ab8ff; --yes: #5fd0a8; --partly: #f0b75a; --no: #ff8f66; --unknown: #b4bcc6;
    --first: #5fb4ec; --second: #f0a45a; --shade: #000000cc;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem 3rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
  font-variant-ligatures: none;
}
h1 { font-size: 1.35rem; margin: 0; font-weight: 600; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--link); }
.about, .note, figcaption { color: var(--quiet); font-size: .92rem; }
.answer {
  font-size: 1.6rem; line-height: 1.3; font-weight: 650; margin: 1.25rem 0; max-width: 52rem;
  border-left: .4rem solid var(--unknown); padding-left: 1rem;
}
.answer.yes { border-color: var(--yes); }
.answer.partly { border-color: var(--partly); }
.answer.no { border-color: var(--no); }
.warning {
  border: 2px solid var(--no); border-radius: .4rem; padding: .6rem .9rem; margin: 1rem 0;
}
.figures {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 1rem;
  margin: 1.25rem 0;
}
.figures > div { background: var(--card); border-radius: .5rem; padding: .9rem 1.1rem; }
.figures dt { color: var(--quiet); }
.figures dd { margin: 0; }
.figures .value { font-size: 2.1rem; font-weight: 700; line-height: 1.2; }
.figures .detail { color: var(--quiet); font-size: .92rem; }
nav ul {
  display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: 1rem 0;
}
figure { margin: .75rem 0; }
.scroll {
  overflow-x: auto; margin: .75rem 0; max-width: 100%;
  background:
    linear-gradient(to right, var(--paper) 40%, transparent) left,
    linear-gradient(to left, var(--paper) 40%, transparent) right,
    linear-gradient(to right, var(--shade), transparent) left,
    linear-gradient(to left, var(--shade), transparent) right;
  background-size: 2rem 100%, 2rem 100%, .75rem 100%, .75rem 100%;
  background-repeat: no-repeat; background-attachment: local, local, scroll, scroll;
}
.scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .92rem; min-width: 20rem; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td {
  text-align: left; vertical-align: top; padding: .3rem 1.1rem .3rem 0; max-width: 22rem;
  border-bottom: 1px solid var(--line); font-weight: 400; overflow-wrap: break-word;
}
thead th { color: var(--quiet); font-weight: 600; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.hidden {
  position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap;
}
code { font-size: .95em; }
td code, th code { white-space: nowrap; }
.plot { display: block; width: 100%; min-width: 34rem; max-width: 46rem; height: auto; }
.plot text { font: 13px system-ui, sans-serif; fill: var(--ink); stroke: none; }
.plot .background { fill: none; }
.plot .axis.x text, .plot .centered, .plot .no_data { text-anchor: middle; }
.plot .axis.y text { text-anchor: end; }
.plot .axis .line { stroke: var(--line); fill: none; }
.plot .nofill { fill: none; }
.plot .series .rect { stroke: var(--ink); stroke-width: .75; }
.plot .legend rect { stroke: var(--ink); stroke-width: .75; }
.plot .text-overlay text { fill: #000000; font-weight: 600; }
.plot .color-0 { fill: var(--ready); }
.plot .color-1 { fill: var(--noncompliant); }
.plot .color-2 { fill: var(--bounce); }
.plot .color-3 { fill: var(--defer); }
.plot .color-4 { fill: var(--dim); }
.plot.reasons .color-0 { fill: var(--noncompliant); }
.plot.history .color-0 { fill: var(--first); stroke: var(--first); }
.plot.history .color-1 { fill: var(--second); stroke: var(--second); }
.plot.history .series .line { fill: none; stroke-width: 2.5; }
.plot.history .color-1 .line { stroke-dasharray: 7 4; }
.plot.history .axis.x .guide { stroke: none; }
@media (max-width: 48rem) {
  tbody th { min-width: 7.5rem; }
  td:not(.number):nth-last-child(-n+2) { min-width: 14rem; }
}
footer {
  margin-top: 3rem; border-top: 1px solid var(--line); color: var(--quiet); font-size: .92rem;
}
@media print {
  :root {
    --paper: #ffffff; --ink: #000000; --quiet: #333333; --line: #999999; --card: #ffffff;
    --link: #000000; --yes: #000000; --partly: #000000; --no: #000000; --unknown: #000000;
    --first: #0072b2; --second: #b45f06;
  }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .scroll { overflow: visible; background: none; }
  td:not(.number):nth-last-child(-n+2) { min-width: 0; }
  table { font-size: 8.5pt; max-width: 100%; }
  th, td { padding-right: .6rem; overflow-wrap: anywhere; }
  thead th, td code, th code { white-space: normal; }
  thead th { overflow-wrap: normal; }
  tbody th { min-width: 8rem; }
  .plot { min-width: 0; max-width: 15cm; }
  .figures > div { border: 1px solid var(--line); }
  .figures { grid-template-columns: repeat(3, 1fr); }
  h2, h3, caption { break-after: avoid; }
  figure, tr, .figures { break-inside: avoid; }
  thead { display: table-header-group; }
  .plot * { print-color-adjust: exact; }
}
"""
"""Both colour schemes have a contrast of at least 4.5 for text. Bars are outlined, since their
colours have less against the page; the numbers in them are black in both schemes.

What is wider than the screen has a shadow at the side where more of it is: gradients that stand
still, below others that scroll with the content and hide them at its ends."""
