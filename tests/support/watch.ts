/** Promises that are looked at while they are pending. */

import type { Endpoint, TransportError, UndeliveredDetail } from "../../mod.ts";
import { text } from "./cluster.ts";

/** What has become of a promise so far. */
export interface Watched {
  outcome: "pending" | "resolved" | "rejected";
  error?: TransportError;
}

/** Keeps track of a promise, so that no rejection is unhandled. */
export function watch(promise: Promise<unknown>): Watched {
  const watched: Watched = { outcome: "pending" };
  promise.then(
    () => watched.outcome = "resolved",
    (error) => Object.assign(watched, { outcome: "rejected", error }),
  );
  return watched;
}

/** Every undelivered event from now on; by default in short: "fate payload". */
export function undelivered(
  endpoint: Endpoint,
  line: (detail: UndeliveredDetail) => string = ({ fate, payload }) => `${fate} ${text(payload)}`,
): string[] {
  const lines: string[] = [];
  endpoint.addEventListener("undelivered", ({ detail }) => lines.push(line(detail)));
  return lines;
}
