/** Bodies of handshake frames. */

import { texts } from "./hex.ts";

const NONCE = "AAECAwQFBgcICQoLDA0ODw==";
const ID = "0123456789abcdef0123456789abcdef";
const KEY = `${"A".repeat(43)}=`;
const SIGNATURE = `${"A".repeat(86)}==`;
const DEEP = `{"a":${"[".repeat(20)}${"]".repeat(20)}}`;

/** The smallest one, one with everything, and malformed ones. */
export const HELLOS: Uint8Array[] = texts(
  '{"type":"hello","protocol_version":2,"node_id":"a","capabilities":["lz4"]}',
  JSON.stringify({
    type: "hello",
    protocol_version: 3,
    node_id: "node1",
    capabilities: ["lz4", "zstd", "checksum", "resume", "streams", "signed", "other"],
    min_protocol_version: 1,
    incarnation: "00000000000000aa",
    cluster_name: "",
    expect_node_id: "node2",
    max_message_size: 16_777_216,
    timestamp: 1_700_000_000_000,
    nonce: NONCE,
    auth_token: "secret",
    keepalive_ms: 30_000,
    session: { id: ID, received: [1, 2, 3] },
    session_generation: 0,
    receive_window: 16_777_216,
    features: ["query", "replication"],
    max_streams: 256,
    public_key: KEY,
  }),
  '{"type":"hello","protocol_version":1,"node_id":"\\u001b[2J","capabilities":[]}',
  '{"type":"hello","type":"hello","protocol_version":2,"node_id":"a","capabilities":[]}',
  '{"type":"hello","__proto__":{"node_id":"a"},"protocol_version":2,"capabilities":[]}',
  DEEP,
  "[]",
  "{",
  '{"a":"\\ud800"}',
  "\ufeff{}",
);

/** Welcomes and rejects. */
export const ANSWERS: Uint8Array[] = texts(
  '{"type":"welcome","protocol_version":2,"node_id":"node2","capabilities":["lz4"]}',
  JSON.stringify({
    type: "welcome",
    protocol_version: 3,
    node_id: "node2",
    capabilities: ["resume", "streams"],
    max_message_size: 16_777_216,
    incarnation: "00000000000000bb",
    cluster_name: "",
    timestamp: 1_700_000_000_000,
    nonce: NONCE,
    session: { id: ID, resumed: true, received: [0, 9_007_199_254_740_991, 0] },
    session_generation: 7,
    receive_window: 16_777_216,
    features: [],
    max_streams: 0,
    public_key: KEY,
    signature: SIGNATURE,
  }),
  '{"type":"reject","code":"AUTH_FAILED","reason":"no"}',
  '{"type":"reject","code":"\\u0007SOMETHING","reason":"\\r\\n\\u001b[31m"}',
  '{"type":"reject"}',
  '{"type":"hello"}',
  DEEP,
);

/** Proofs. */
export const PROOFS: Uint8Array[] = texts(
  `{"type":"proof","signature":"${SIGNATURE}"}`,
  '{"type":"proof","signature":""}',
  '{"type":"proof"}',
  "null",
);

/** Names, values and what stands between them. */
export const JSON_WORDS: Uint8Array[] = texts(
  ...["{", "}", "[", "]", ":", ",", '"', "\\", "\\u0000", "\\ud800", "\u202e", "\0", "null"],
  ...["true", "1e309", "-1", '"__proto__":', '"constructor":', '"session":', '"received":[0,0,0]'],
  ...['"protocol_version":3', '"capabilities":[]', '"type":"hello"', '"type":"reject"', "  "],
);
