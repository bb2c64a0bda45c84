/** What runtimes say of a transport that they do not have. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { RuntimeName } from "../../tools/runtimes.ts";
import { TestCa } from "../support/certs.ts";
import { mayRun } from "../support/may_run.ts";
import { Actor, ActorError } from "./process.ts";
import { asB, strict } from "./quic_pair.ts";

/** To listen at an address fails with the reason; `without`: who, on which runtime, and why. */
export function withoutTransport(
  name: string,
  listen: string,
  without: Readonly<Record<string, readonly [RuntimeName, RegExp]>>,
): void {
  describe(`where there is no ${name}`, { skip: !mayRun() }, () => {
    for (const [who, [runtime, reason]] of Object.entries(without)) {
      it(`${who} says so`, async () => {
        const ca = await TestCa.create();
        const b = new Actor(runtime);
        try {
          const options = { ...await strict(ca, "b"), ...asB(), listen };
          await assert.rejects(b.tell({ do: "start", options }), (error) => {
            assert.ok(error instanceof ActorError);
            assert.equal(error.code, "UnsupportedProtocol", error.message);
            assert.match(error.message, reason);
            return true;
          });
        } finally {
          await b.close();
        }
      });
    }
  });
}
