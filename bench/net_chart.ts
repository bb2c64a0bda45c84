/**
 * The ratios of the network bench as a picture: one group of bars for each row, one bar for each
 * runtime, and a mark where the target is. Longer is better; of a time the inverse is drawn.
 */

import { isMet, ratioOf, type Row, type Target } from "./net_cases.ts";

const WIDTH = 800;
const LEFT = 270;
const RIGHT = 90;
const TOP = 64;
const BAR = 11;
const BAR_GAP = 2;
const GROUP_GAP = 12;
const FOOT = 34;
/** The scale reaches so far at least; what goes beyond it makes it longer, up to the limit. */
const MIN_SCALE = 1;
const MAX_SCALE = 2;
/** Steps between the lines of the scale. */
const TICK = 0.25;

/** Colours that are told apart in light and dark, also by those who see few of them. */
const STYLE = `
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .ground { fill: #ffffff; }
  .title { font-size: 14px; font-weight: 600; }
  .faint { fill: #59636e; font-size: 11px; }
  .grid { stroke: #d1d9e0; }
  .raw { stroke: #59636e; }
  .target { stroke: #1f2328; stroke-width: 2; }
  .c0 { fill: #0b6e99; } .c1 { fill: #d9730d; } .c2 { fill: #4d8b31; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; }
    .ground { fill: #0d1117; }
    .faint { fill: #9198a1; }
    .grid { stroke: #3d444d; }
    .raw { stroke: #9198a1; }
    .target { stroke: #f0f6fc; }
    .c0 { fill: #4fb3d9; } .c1 { fill: #f0a04b; } .c2 { fill: #7fc45f; }
  }`;

/** The picture as a document of its own, in SVG. */
export function chartOf(rows: readonly Row[], machine: readonly string[]): string {
  const drawn = rows.filter((row) => row.unit !== "cost" && row.hawser.length > 0);
  const names = [...new Set(drawn.map(({ name }) => name))];
  const runtimes = [...new Set(drawn.map(({ runtime }) => runtime))];
  const longest = Math.max(MIN_SCALE, ...drawn.map(shareOf));
  const scale = Math.min(MAX_SCALE, Math.ceil(longest / TICK) * TICK);
  const xOf = (share: number) => LEFT + Math.min(share, scale) / scale * (WIDTH - LEFT - RIGHT);
  const groupHeight = runtimes.length * (BAR + BAR_GAP) + GROUP_GAP;
  const bottom = TOP + names.length * groupHeight;
  const parts = [
    `<rect class="ground" width="${WIDTH}" height="${bottom + FOOT}"/>`,
    text(16, 24, "Hawser's speed as a share of the raw socket's, longer is better", "title"),
    ...runtimes.map((runtime, index) => legend(16 + index * 130, runtime, index)),
    ...ticks(scale).map((share) => tick(xOf(share), share, bottom)),
    ...names.map((name, index) => {
      const y = TOP + index * groupHeight + (groupHeight - GROUP_GAP) / 2 + 4;
      return text(LEFT - 10, y, name, undefined, "end");
    }),
    ...drawn.map((row) => {
      const [group, index] = [names.indexOf(row.name), runtimes.indexOf(row.runtime)];
      const y = TOP + group * groupHeight + index * (BAR + BAR_GAP);
      return bar(row, index, y, xOf);
    }),
    text(16, bottom + FOOT - 10, machine.slice(1).join("; "), "faint"),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${bottom + FOOT}" ` +
    `width="${WIDTH}" height="${bottom + FOOT}" role="img">\n` +
    `<title>Hawser against the raw socket</title>\n<style>${STYLE}\n</style>\n` +
    `${parts.join("\n")}\n</svg>\n`;
}

/** How fast Hawser is: 1 is as fast as the raw socket, also of a time. */
function shareOf(row: Row): number {
  return row.unit === "latency" ? 1 / ratioOf(row) : ratioOf(row);
}

function targetShare({ least, most }: Target): number | undefined {
  return least ?? (most === undefined ? undefined : 1 / most);
}

function bar(row: Row, index: number, y: number, xOf: (share: number) => number): string {
  const share = shareOf(row);
  const end = xOf(share);
  const target = row.target && targetShare(row.target);
  const x = target === undefined ? undefined : xOf(target).toFixed(1);
  const verdict = isMet(row) === undefined ? "" : isMet(row) ? " ✓" : " ✗";
  const after = Math.max(end, target === undefined ? 0 : xOf(target)) + 6;
  return `<rect class="c${index % 3}" x="${LEFT}" y="${y}" width="${(end - LEFT).toFixed(1)}" ` +
    `height="${BAR}"><title>${escape(`${row.runtime}, ${row.name}`)}</title></rect>` +
    (x === undefined
      ? ""
      : `<line class="target" x1="${x}" x2="${x}" y1="${y - 1}" y2="${y + BAR + 1}"/>`) +
    text(after, y + BAR - 2, `${share.toFixed(2)}${verdict}`, "faint");
}

function ticks(scale: number): number[] {
  return Array.from({ length: Math.floor(scale / TICK) + 1 }, (_, index) => index * TICK);
}

function tick(x: number, share: number, bottom: number): string {
  return `<line class="${share === 1 ? "raw" : "grid"}" x1="${x.toFixed(1)}" ` +
    `x2="${x.toFixed(1)}" y1="${TOP - 4}" y2="${bottom - GROUP_GAP + 4}"/>` +
    text(x, TOP - 8, share === 1 ? "raw" : String(share), "faint", "middle");
}

function legend(x: number, runtime: string, index: number): string {
  return `<rect class="c${index % 3}" x="${x}" y="33" width="11" height="11"/>` +
    text(x + 16, 43, runtime, "faint");
}

function text(x: number, y: number, content: string, style?: string, anchor?: string): string {
  const attributes = (style === undefined ? "" : ` class="${style}"`) +
    (anchor === undefined ? "" : ` text-anchor="${anchor}"`);
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}"${attributes}>${escape(content)}</text>`;
}

function escape(content: string): string {
  return content.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}
