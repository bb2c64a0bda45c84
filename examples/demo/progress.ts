/**
 * How far each node is: bars that are redrawn on a terminal, plain lines anywhere else.
 *
 * @module
 */

/** Where the progress is written. */
export interface Screen {
  write(text: string): void;
  /** Whether lines may be redrawn. */
  readonly interactive: boolean;
  /** Characters in a line. */
  readonly columns: number;
}

const BAR_CHARS = 28;
/** On a terminal: redraw at most this often. */
const REDRAW_MS = 40;
/** Elsewhere: a line each time another such share is done. */
const STEP = 0.25;

interface Row {
  done: number;
  note: string;
  /** How many steps were written as lines. */
  steps: number;
}

/** One row per node. */
export class Progress {
  readonly #screen: Screen;
  readonly #rows = new Map<string, Row>();
  #drawn = 0;
  #lastDraw = 0;

  /** Begins with nothing done. */
  constructor(screen: Screen, names: readonly string[]) {
    this.#screen = screen;
    for (const name of names) this.#rows.set(name, { done: 0, note: "", steps: 0 });
  }

  /** A node is this far, between 0 and 1. */
  set(name: string, done: number, note: string): void {
    const row = this.#rows.get(name)!;
    row.done = Math.min(1, done);
    row.note = note;
    if (this.#screen.interactive) return this.#draw(done >= 1);
    const steps = Math.floor(row.done / STEP);
    if (steps <= row.steps) return;
    row.steps = steps;
    this.#screen.write(`${name} ${percent(row.done)} ${note}\n`);
  }

  /** Writes a line above the bars. */
  log(line: string): void {
    this.#erase();
    this.#screen.write(`${line}\n`);
    this.#draw(true);
  }

  /** Leaves the bars as they are; what is written next comes below. */
  end(): void {
    this.#draw(true);
    this.#drawn = 0;
    this.#rows.clear();
  }

  #draw(now: boolean): void {
    if (!this.#screen.interactive || this.#rows.size === 0) return;
    if (!now && performance.now() - this.#lastDraw < REDRAW_MS) return;
    this.#erase();
    for (const [name, row] of this.#rows) {
      this.#screen.write(`${bar(name, row).slice(0, this.#screen.columns - 1)}\n`);
    }
    this.#drawn = this.#rows.size;
    this.#lastDraw = performance.now();
  }

  #erase(): void {
    // Up to the first bar, and everything from there on is cleared.
    if (this.#drawn > 0) this.#screen.write(`\x1b[${this.#drawn}A\x1b[J`);
    this.#drawn = 0;
  }
}

function bar(name: string, { done, note }: Row): string {
  const full = Math.round(done * BAR_CHARS);
  return `${name} [${"#".repeat(full)}${".".repeat(BAR_CHARS - full)}] ${percent(done)} ${note}`;
}

function percent(share: number): string {
  return `${Math.floor(share * 100)}%`.padStart(4);
}
