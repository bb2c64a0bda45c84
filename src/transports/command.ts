/**
 * `hawser transports`: what this runtime can reach other nodes by, and why not by the rest.
 *
 * @module
 */

import type { CommandIo } from "../certs/command.ts";
import { builtinTransports } from "../transport/builtin.ts";
import { DEFAULT_PRIORITY, type Transport } from "../transport/transport.ts";
import { detectRuntime } from "../runtime/runtime.ts";

/** A line of the table. */
export interface TransportRow {
  /** The scheme of its addresses. */
  readonly scheme: string;
  /** Whether it can be used on this runtime. */
  readonly available: boolean;
  /** Why it can't; undefined where it can. */
  readonly reason: string | undefined;
  /** Which of a peer's addresses is tried first: the one with the highest. */
  readonly priority: number;
  /** What is written arrives, or the link closes. */
  readonly reliable: boolean;
  /** What arrives, arrives in the order of writing. */
  readonly ordered: boolean;
  /** Links share a connection, and none waits for what another has lost. */
  readonly multiplexed: boolean;
  /** Can encrypt. */
  readonly encrypted: boolean;
  /** Can show each side a verified certificate of the other. */
  readonly peerAuthenticated: boolean;
  /** The longest message in bytes; null where `maxMessageSize` alone decides. */
  readonly maxMessageSize: number | null;
}

const COLUMNS = [
  ...["scheme", "available", "priority", "reliable", "ordered", "multiplexed", "encrypted"],
  ...["peer-authenticated", "max message"],
] as const;

/** `hawser transports [--json]`. */
export function runTransports(flags: { readonly json: boolean }, io: CommandIo): number {
  const runtime = detectRuntime();
  const rows = transportRows(builtinTransports(runtime));
  if (flags.json) {
    const { name, version } = runtime;
    io.stdout(`${JSON.stringify({ runtime: name, version, transports: rows }, undefined, 2)}\n`);
    return 0;
  }
  io.stdout(`${runtime.name} ${runtime.version}\n\n${table(rows)}`);
  for (const { scheme, reason } of rows) {
    if (reason !== undefined) io.stdout(`\n${scheme}: ${reason}\n`);
  }
  return 0;
}

/** What transports say of themselves, the best first. */
export function transportRows(transports: readonly Transport[]): TransportRow[] {
  return transports.map(({ scheme, unavailable, priority, capabilities }) => ({
    scheme,
    available: unavailable === undefined,
    reason: unavailable,
    priority: priority ?? DEFAULT_PRIORITY,
    reliable: capabilities.reliable,
    ordered: capabilities.ordered,
    multiplexed: capabilities.multiplexed,
    encrypted: capabilities.encrypted,
    peerAuthenticated: capabilities.peerAuthenticated,
    maxMessageSize: capabilities.maxMessageSize ?? null,
  })).sort((a, b) => b.priority - a.priority);
}

function table(rows: readonly TransportRow[]): string {
  const word = (value: boolean) => value ? "yes" : "no";
  const cells = rows.map((row) => [
    row.scheme,
    word(row.available),
    String(row.priority),
    word(row.reliable),
    word(row.ordered),
    word(row.multiplexed),
    word(row.encrypted),
    word(row.peerAuthenticated),
    row.maxMessageSize === null ? "any" : `${row.maxMessageSize} B`,
  ]);
  const widths = COLUMNS.map((name, i) =>
    Math.max(name.length, ...cells.map((row) => row[i]!.length))
  );
  return [[...COLUMNS], ...cells]
    .map((row) => `${row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd()}\n`)
    .join("");
}
