/** The table that the bench of libraries prints. */

import os from "node:os";
import type { RuntimeName } from "../../tools/runtimes.ts";
import { line, median } from "../net_table.ts";
import type { Case } from "./case.ts";
import type { Library } from "./libraries.ts";
import { canPin } from "./pair.ts";

/** All measurements of one library in one case on one runtime. */
export interface Row {
  readonly runtime: RuntimeName;
  readonly library: Library;
  readonly case: Case;
  readonly values: number[];
  /** Why there are none, or fewer. */
  error: string | undefined;
}

const NAME_WIDTH = 30;
const CELL_WIDTH = 26;

/** Says what the figures are taken with, and how. */
export function showHead(command: string, options: { seconds: number; repeat: number }): void {
  console.log(command);
  console.log(`${new Date().toISOString()}, ${os.platform()} ${os.release()} ${os.arch()}`);
  console.log(cpuText());
  console.log(
    `medians (least - most) of ${options.repeat} x ${options.seconds} s; two processes, loopback; ` +
      "requests and answers of 64 B",
  );
  const p50 = canPin() ? "both processes on one core" : "not held to one core: no taskset";
  console.log(`request p50: one at a time, ${p50}; the broker is not held to a core`);
}

/** The processor. */
export function cpuText(): string {
  const cpus = os.cpus();
  return `${cpus.length} cores of ${cpus[0]?.model.trim() ?? "an unknown CPU"}`;
}

/** A runtime's libraries, the ratios of Hawser, and what did not work. */
export function showRuntime(runtime: RuntimeName, rows: readonly Row[]): void {
  const cases = [...new Set(rows.map((row) => row.case))];
  const widths = [NAME_WIDTH, ...cases.map(() => CELL_WIDTH)];
  console.log();
  console.log(line([runtime, ...cases.map(({ title }) => title)], widths));
  console.log(line(widths.map((width) => "-".repeat(width - 1)), widths));
  for (const library of new Set(rows.map((row) => row.library))) {
    const own = rows.filter((row) => row.library === library);
    console.log(line([library.title, ...own.map(showValues)], widths));
  }
  const ratios = cases.map((one) => ratioToBest(rows.filter((row) => row.case === one)));
  if (ratios.some((ratio) => ratio !== undefined)) {
    console.log(line(widths.map((width) => "-".repeat(width - 1)), widths));
    const cells = ratios.map((ratio) =>
      ratio === undefined ? "-" : `${ratio.value.toFixed(2)} x ${ratio.best}`
    );
    console.log(line(["Hawser to the best library", ...cells], widths));
  }
  for (const text of whyNot(rows)) console.log(text);
}

/** How many times as good Hawser is as the best of the libraries; more is better in each case. */
export function ratioToBest(rows: readonly Row[]): { value: number; best: string } | undefined {
  const hawser = rows.find(({ library }) => library.name === "hawser");
  const rivals = rows.filter(({ library, values }) => library.rival && values.length > 0);
  if (hawser === undefined || hawser.values.length === 0) return undefined;
  if (rivals.length === 0) return undefined;
  const goodness = ({ case: { lessIsBetter }, values }: Row) =>
    lessIsBetter ? 1 / median(values) : median(values);
  const best = rivals.reduce((best, row) => goodness(row) > goodness(best) ? row : best);
  return { value: goodness(hawser) / goodness(best), best: best.library.name };
}

function showValues({ case: { scale, digits }, values }: Row): string {
  if (values.length === 0) return "-";
  const show = (value: number) => (value / scale).toFixed(digits);
  const middle = show(median(values));
  if (values.length === 1) return middle;
  return `${middle} (${show(Math.min(...values))} - ${show(Math.max(...values))})`;
}

/** One line for each library and error, with the cases it is about unless these are all. */
function whyNot(rows: readonly Row[]): string[] {
  const failed = rows.filter(({ error }) => error !== undefined);
  const kinds = new Set(failed.map(({ library, error }) => `${library.name}: ${error}`));
  return [...kinds].map((text) => {
    const same = failed.filter(({ library, error }) => `${library.name}: ${error}` === text);
    const all = rows.filter(({ library }) => library === same[0]!.library);
    if (same.length === all.length) return text;
    return `${text} (${same.map((row) => row.case.name).join(", ")})`;
  });
}
