/**
 * An encrypted link with known keys: node1 dials node2. The Ed25519 keys are those of RFC 8032,
 * section 7.1, tests 1 and 2; the X25519 keys those of RFC 7748, section 6.1. The packets were made
 * by a program that shares nothing with the code, from docs/datagrams.md.
 *
 * @module
 */

import { createPrivateKey, createPublicKey, diffieHellman } from "node:crypto";
import { Buffer } from "node:buffer";
import type { KeyExchange, PacketCrypto } from "../../src/protocol/datagram/encryption.ts";
import { packetCrypto } from "../../src/runtime/packet_crypto.ts";
import { concat, hex } from "./wire_bytes.ts";

/** The tags: node1 is the dialer. */
export const TAG1: Uint8Array = hex("000102030405060708090a0b0c0d0e0f");
export const TAG2: Uint8Array = hex("a0a1a2a3a4a5a6a7a8a9aaabacadaeaf");
/** The private keys of the key agreement. */
export const SECRET1 = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
export const SECRET2 = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
/** The public keys that belong to them. */
export const PUBLIC1: Uint8Array = hex(
  "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
);
export const PUBLIC2: Uint8Array = hex(
  "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
);
/** What both know then. */
export const SHARED: Uint8Array = hex(
  "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
);
/** The keys of the link. */
export const FROM_DIALER: Uint8Array = hex(
  "1bbf9ff851a9f69f0e9947fc39ba14d5c55a7cf3bdec02b93db89b69d2947242",
);
export const FROM_LISTENER: Uint8Array = hex(
  "975713bef081d83b2fd10592bbd4c6783726f472f27281ff4c4c4dbd0df389f8",
);
/** The private key of node2 as PEM text: RFC 8032, section 7.1, test 2. */
export const PRIVATE_KEY2: string = `-----BEGIN PRIVATE KEY-----
${
  Buffer.from(
    "302e020100300506032b6570042204204ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    "hex",
  ).toString("base64")
}
-----END PRIVATE KEY-----
`;
/** "ahoy" about "gossip" to node2: signed, encrypted, the first packet of the dialer. */
export const SEALED_DATA: Uint8Array = hex(
  "da14 a0a1a2a3a4a5a6a7a8a9aaabacadaeaf 0000000000000001" +
    "6b609201a444c26263ec5dd191465fdb7ee82cb61cc4d2bf82b82d0b7a38d0f0" +
    "8f38211f4524df070ce13160addfcbc66fb2dfd86239186ff8913bfa285fcfff" +
    "83b4d225634d036840558f5afcec8b5b3ea7fe43c65d85ea1ea710ef71e8bcfc" +
    "bb2ee583737e70eae2c541c2031d65dc5f712da4c634945c91ec3bfbd5",
);
/** A pong of node2, its first packet. */
export const SEALED_PONG: Uint8Array = hex(
  "da1a 000102030405060708090a0b0c0d0e0f 0000000000000001" +
    "2a58b5d1b9aca80c1085569500d278db0079b7e9e6fdddc43f3a1941c6917437" +
    "ce741dfc5892351d1b06469fb68227954c3ce0f05ed35687b2db8df4119cad46" +
    "af8307d7742b0b916c76b27d0db6fb63ca413aef414d3fb5ae126d1358a926f9" +
    "6b14dbd547a04d27c72992f4b7dbe32a46d277d1b521177c4f",
);

const PKCS8_PREFIX = hex("302e020100300506032b656e04220420");
const SPKI_PREFIX = hex("302a300506032b656e032100");

/** A part of a key agreement with a known private key. */
export function fixedExchange(secret: string): KeyExchange {
  const der = Buffer.from(concat(PKCS8_PREFIX, hex(secret)));
  const privateKey = createPrivateKey({ key: der, format: "der", type: "pkcs8" });
  const spki = createPublicKey(privateKey).export({ format: "der", type: "spki" });
  return {
    publicKey: new Uint8Array(spki.subarray(SPKI_PREFIX.length)),
    agree: (peerKey) => {
      const key = Buffer.from(concat(SPKI_PREFIX, peerKey));
      const publicKey = createPublicKey({ key, format: "der", type: "spki" });
      return new Uint8Array(diffieHellman({ privateKey, publicKey }));
    },
  };
}

/** Cryptography whose key agreements are all this one. */
export function cryptoWith(exchange: KeyExchange, maxPackets = packetCrypto.maxPackets) {
  return { ...packetCrypto, newExchange: () => exchange, maxPackets } satisfies PacketCrypto;
}
