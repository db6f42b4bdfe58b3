/** The picture for the README: how many times as fast as each target, one bar each. */

const ROW = 18;
const LEFT = 230;
const WIDTH = 760;
const BARS = WIDTH - LEFT - 130;

/**
 * @param {{title: string, rows: {job: string, target: string, ratio: number, least: number,
 *   most: number}[]}[]} groups rows of our own target (ratio 1) are left out.
 * @returns {string} an SVG document; the scale is logarithmic, from 1/4 to 32 times as fast.
 */
export function drawChart(groups) {
  const parts = [];
  let y = 24;
  for (const { title, rows } of groups) {
    const shown = rows.filter(({ target }) => target !== rows[0].target);
    if (shown.length === 0) continue;
    parts.push(text(8, y + 12, title, 'class="title"'));
    y += 24;
    for (const row of shown) {
      const end = place(row.ratio);
      const start = place(1);
      const [x, width] = end < start ? [end, start - end] : [start, end - start];
      const side = row.ratio < 1 ? 'slower' : 'faster';
      parts.push(text(LEFT - 8, y + 12, `${row.job} / ${row.target}`, 'text-anchor="end"'));
      parts.push(bar(x, y + 3, Math.max(width, 1), side));
      parts.push(whisker(place(row.least), place(row.most), y + 8));
      parts.push(text(LEFT + BARS + 10, y + 12, `${row.ratio.toFixed(2)}x`, ''));
      y += ROW;
    }
    y += 8;
  }
  const line = place(1);
  parts.push(`<line x1="${line}" y1="20" x2="${line}" y2="${y}" class="one"/>`);
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y + 12}">`,
    '<title>layerdisk beside others: how many times as fast</title>',
    '<style>text{font:12px sans-serif;fill:#333}.title{font-weight:bold}.faster{fill:#4a7}',
    '.slower{fill:#c75}.one,.spread{stroke:#333}</style>',
    `<rect width="${WIDTH}" height="${y + 12}" fill="#fff"/>`,
    text(8, 14, 'layerdisk: times as fast (median of alternated runs; the line is the spread)', ''),
    ...parts,
    '</svg>',
  ].join('\n')}\n`;
}

/** From 1/4 to 32 on a logarithmic scale. */
function place(ratio) {
  const share = (Math.log2(Math.min(32, Math.max(0.25, ratio))) + 2) / 7;
  return Math.round(LEFT + share * BARS);
}

function text(x, y, words, attributes) {
  const safe = words.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return `<text x="${x}" y="${y}" ${attributes}>${safe}</text>`;
}

function bar(x, y, width, kind) {
  return `<rect x="${x}" y="${y}" width="${width}" height="11" class="${kind}"/>`;
}

function whisker(from, to, y) {
  return `<line x1="${from}" y1="${y}" x2="${to}" y2="${y}" class="spread"/>`;
}
