/** Certificates of the processes of a bench. */

import { TestCa } from "../tests/support/certs.ts";
import type { Pem } from "./net_case.ts";

/** A certificate for each name, all of one authority. */
export async function issueFor<Name extends string>(
  names: Readonly<Record<Name, string>>,
): Promise<Record<Name, Pem>> {
  const authority = await TestCa.create();
  const entries = Object.entries<string>(names).map(async ([key, name]) => {
    return [key, { ...await authority.issue(name), ca: authority.ca }] as const;
  });
  return Object.fromEntries(await Promise.all(entries)) as Record<Name, Pem>;
}
