/**
 * Decodes the hex examples of docs/envelopes.md, and holds the page against the code.
 *
 * @module
 */

import assert from "node:assert/strict";
import { verifyEnvelope } from "../../src/envelope.ts";
import { TransportError } from "../../src/errors.ts";
import { MAX_ENVELOPE_OVERHEAD } from "../../src/protocol/envelope.ts";
import { RoutingTable } from "../../src/routing.ts";

const PAGE = "docs/envelopes.md";
/** The key of RFC 8032, section 7.1, test 1. */
const PUBLIC_KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const EXAMPLE = /^```hex envelope\n([^]*?)^```\n\n(?:[^\n`]+\n\n)?```json\n([^]*?)^```/gm;

/** Fails where the page and the code disagree. `read` gives the text of a file of the project. */
export async function check(read: (path: string) => Promise<string>): Promise<void> {
  const page = await read(PAGE);
  const examples = [...page.matchAll(EXAMPLE)];
  assert.equal(examples.length, page.match(/^```hex/gm)?.length, "every example has its JSON");
  assert.equal(examples.length, 3);
  for (const [, hex = "", json = ""] of examples) {
    assert.deepEqual(decode(fromHex(hex)), JSON.parse(json), hex);
  }
  assert.ok(page.includes(`${MAX_ENVELOPE_OVERHEAD} at most`), "the overhead of an envelope");
  for (const name of Object.getOwnPropertyNames(RoutingTable.prototype)) {
    if (name === "constructor") continue;
    assert.match(page, new RegExp(`\`${name}[(\`]`), `${name} of the routing table`);
  }
}

function decode(bytes: Uint8Array): unknown {
  try {
    const { payload, signature: _, ...rest } = verifyEnvelope(bytes, {
      trustedKeys: { node1: PUBLIC_KEY },
      maxAgeMs: Infinity,
    });
    return { ...rest, payload: new TextDecoder().decode(payload), signedBy: PUBLIC_KEY };
  } catch (error) {
    if (!(error instanceof TransportError)) throw error;
    return { error: error.code };
  }
}

function fromHex(text: string): Uint8Array {
  const digits = text.replaceAll(/#.*$|\s/gm, "");
  return Uint8Array.from({ length: digits.length / 2 }, (_, at) => {
    return Number.parseInt(digits.slice(2 * at, 2 * at + 2), 16);
  });
}
