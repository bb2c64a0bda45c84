/** What every transport owes: the contract that is published, under this project's test runner. */

import { describe, it } from "node:test";
import { type ContractSubject, linkContract as contract } from "../../testing.ts";

export { ContractListener, dialOptions } from "../../src/testing/contract_listener.ts";
export type { ContractSubject };

/** Runs all of the contract's tests on what `make` gives. */
export function linkContract(name: string, make: () => Promise<ContractSubject>): void {
  describe(name, () => {
    for (const test of contract(make)) {
      it(test.name, async (context) => {
        await test.run();
        if (test.skipped !== undefined) context.skip(test.skipped);
      });
    }
  });
}
