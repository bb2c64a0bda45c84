/**
 * X25519 (RFC 7748) and AES-256-GCM, synchronous, the same on every runtime. Needs no permission.
 * Bun has no ChaCha20-Poly1305.
 *
 * @module
 */

import {
  createCipheriv,
  createDecipheriv,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
} from "node:crypto";
import { Buffer } from "node:buffer";
import type { KeyExchange, PacketCipher, PacketCrypto } from "../protocol/datagram/encryption.ts";

const ALGORITHM = "aes-256-gcm";
const TAG_BYTES = 16;
const LENGTH = { authTagLength: TAG_BYTES };
/** AES-GCM stays safe for so many packets of 65,536 bytes (RFC 9001, section 6.6). */
const MAX_PACKETS = 2 ** 23;
/** SubjectPublicKeyInfo of an X25519 key up to the key itself (RFC 8410, section 4). */
const SPKI_PREFIX = Buffer.from("302a300506032b656e032100", "hex");

/** What packets of datagrams are encrypted with. */
export const packetCrypto: PacketCrypto = {
  maxPackets: MAX_PACKETS,

  newExchange(): KeyExchange {
    const { privateKey, publicKey } = generateKeyPairSync("x25519");
    const der = publicKey.export({ format: "der", type: "spki" });
    return {
      publicKey: new Uint8Array(der.subarray(SPKI_PREFIX.length)),
      agree: (peerKey) => agree(privateKey, peerKey),
    };
  },

  cipher(key): PacketCipher {
    return {
      seal: (nonce, header, bytes) => seal(key, nonce, header, bytes),
      open: (nonce, header, sealed) => open(key, nonce, header, sealed),
    };
  },
};

function agree(privateKey: KeyObject, peerKey: Uint8Array): Uint8Array | undefined {
  try {
    const der = Buffer.concat([SPKI_PREFIX, peerKey]);
    const publicKey = createPublicKey({ key: der, format: "der", type: "spki" });
    return new Uint8Array(diffieHellman({ privateKey, publicKey }));
  } catch {
    // The runtimes refuse keys of small order, with which everybody would know the secret.
    return undefined;
  }
}

function seal(
  key: Uint8Array,
  nonce: Uint8Array,
  header: Uint8Array,
  bytes: Uint8Array,
): Uint8Array {
  const cipher = createCipheriv(ALGORITHM, key, nonce, LENGTH);
  cipher.setAAD(header);
  const encrypted = cipher.update(bytes);
  cipher.final();
  const end = header.length + encrypted.length;
  const packet = new Uint8Array(end + TAG_BYTES);
  packet.set(header);
  packet.set(encrypted, header.length);
  packet.set(cipher.getAuthTag(), end);
  return packet;
}

function open(
  key: Uint8Array,
  nonce: Uint8Array,
  header: Uint8Array,
  sealed: Uint8Array,
): Uint8Array | undefined {
  const length = sealed.length - TAG_BYTES;
  const decipher = createDecipheriv(ALGORITHM, key, nonce, LENGTH);
  decipher.setAAD(header);
  decipher.setAuthTag(sealed.subarray(length));
  const bytes = decipher.update(sealed.subarray(0, length));
  try {
    decipher.final();
  } catch {
    return undefined;
  }
  // A Buffer would make `slice` a view.
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
