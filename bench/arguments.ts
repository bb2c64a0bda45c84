/** What the command lines of the benches have in common. */

import { type RuntimeName, RUNTIMES } from "../tools/runtimes.ts";

/** The runtimes that were named, all where none was. */
export function runtimesOf(names: readonly string[] | undefined): readonly RuntimeName[] {
  return names?.map(runtimeOf) ?? RUNTIMES;
}

/** A runtime by its name. */
export function runtimeOf(name: string): RuntimeName {
  const runtime = RUNTIMES.find((known) => known === name);
  if (runtime === undefined) throw new TypeError(`"${name}" is none of ${RUNTIMES.join(", ")}`);
  return runtime;
}

/** A number above 0. */
export function positive(name: string, text: string): number {
  const value = Number(text);
  if (!(value > 0 && Number.isFinite(value))) throw new RangeError(`${name}: a number above 0`);
  return value;
}

/** A whole number above 0. */
export function whole(name: string, text: string): number {
  const value = positive(name, text);
  if (!Number.isInteger(value)) throw new RangeError(`${name}: a whole number`);
  return value;
}

/** Whether connections are to be plain or mutual TLS. */
export function securityOf(text: string): "plain" | "tls" {
  if (text !== "plain" && text !== "tls") throw new TypeError("--security: plain or tls");
  return text;
}
