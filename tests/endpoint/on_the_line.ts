/** Somebody on the line who changes what a node sends, and keys for the nodes. */

import type { Link, Transport } from "../../mod.ts";
import { formatPublicKey, generateSigningKey } from "../../src/runtime/ed25519.ts";
import { join } from "../bad_input/wire.ts";

const HEADER_BYTES = 4;

/** Gets the body of each frame that is written, and returns what goes out in its place. */
export type Change = (body: Uint8Array) => Uint8Array;

/** A transport whose links, dialed or accepted, write what `change` makes of each frame. */
export function changing(transport: Transport, change: Change): Transport {
  return {
    scheme: transport.scheme,
    capabilities: transport.capabilities,
    dial: async (address, options) => changedLink(await transport.dial(address, options), change),
    listen: (address, options) =>
      transport.listen(address, {
        ...options,
        admit: (host) => options.admit(host),
        onError: (error, host) => options.onError(error, host),
        onLink: (link) => options.onLink(changedLink(link, change)),
      }),
  };
}

function changedLink(link: Link, change: Change): Link {
  return {
    info: link.info,
    get bufferedBytes() {
      return link.bufferedBytes;
    },
    open: (events) => link.open(events),
    write: (chunk) => link.write(changedChunk(chunk, change)),
    pause: () => link.pause(),
    resume: () => link.resume(),
    end: () => link.end(),
    close: () => link.close(),
  };
}

/** Chunks are whole frames, one after the other. */
function changedChunk(chunk: Uint8Array, change: Change): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < chunk.length;) {
    const length = new DataView(chunk.buffer, chunk.byteOffset + at).getUint32(0);
    const end = at + HEADER_BYTES + length;
    const body = change(chunk.slice(at + HEADER_BYTES, end));
    const header = new Uint8Array(HEADER_BYTES);
    new DataView(header.buffer).setUint32(0, body.length);
    parts.push(header, body);
    at = end;
  }
  return join(...parts);
}

/** Where `part` stands in `whole`; -1 where it does not. */
export function indexOf(whole: Uint8Array, part: Uint8Array): number {
  for (let at = 0; at + part.length <= whole.length; at++) {
    if (part.every((byte, i) => whole[at + i] === byte)) return at;
  }
  return -1;
}

/** A key pair as the options take it. */
export interface Keys {
  readonly privateKey: string;
  readonly publicKey: string;
}

/** A new key pair. */
export function newKeys(): Keys {
  const { privateKeyPem, publicKey } = generateSigningKey();
  return { privateKey: privateKeyPem, publicKey: formatPublicKey(publicKey) };
}
