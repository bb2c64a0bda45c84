/**
 * What the parts of the datagram protocol call things (docs/datagrams.md).
 *
 * @module
 */

/** The first byte of every packet. */
export const MAGIC = 0xda;
/** The version of the packet format: the high half of the second byte. */
export const PACKET_VERSION = 1;

/** The kinds of packets: the low half of the second byte. */
export const PACKET = {
  hello: 0,
  retry: 1,
  welcome: 2,
  reject: 3,
  data: 4,
  request: 5,
  response: 6,
  error: 7,
  cancel: 8,
  ping: 9,
  pong: 10,
  bye: 11,
} as const;

/** A kind of packet as it stands on the wire. */
export type PacketKind = (typeof PACKET)[keyof typeof PACKET];

/** The bytes of a tag. */
export const TAG_BYTES = 16;
/** Magic, version and kind, tag: what every packet begins with. */
export const PREFIX_BYTES: number = 2 + TAG_BYTES;
/** The prefix and the number: what every packet of an established link begins with. */
export const HEADER_BYTES: number = PREFIX_BYTES + 8;
/** Bytes of a data packet beside topic and payload, where it is in clear: the header and flags. */
export const DATA_OVERHEAD: number = HEADER_BYTES + 1;
/** Bytes of a request beside topic and payload: those of data, id and milliseconds left. */
export const REQUEST_OVERHEAD: number = DATA_OVERHEAD + 8 + 4;
/** Bytes of a response beside its payload: the header and the id. */
export const RESPONSE_OVERHEAD: number = HEADER_BYTES + 8;

/** A hello is never shorter than this, and what answers it before the address is validated is. */
export const MIN_HELLO_BYTES = 1200;
/** The longest packet: an IPv4 packet of 65,535 bytes without the headers of IP and UDP. */
export const MAX_PACKET_BYTES = 65_507;
/** The longest handshake packet: two names, a cluster, and an envelope around them fit well. */
export const MAX_HANDSHAKE_BYTES = 4096;
/** A cookie has at most this many bytes. */
export const MAX_COOKIE_BYTES = 255;
/** The proof that a dialer has the auth token: an HMAC-SHA-256. */
export const AUTH_BYTES = 32;
/** By how much what is encrypted is longer: the tag of AES-GCM. */
export const AEAD_TAG_BYTES = 16;
/** The token of pings and pongs. */
export const TOKEN_BYTES = 8;

/** Codes of errors that only the datagram protocol has. */
export const FORGOTTEN = "FORGOTTEN";
/** The answer is too long for a datagram. */
export const RESPONSE_TOO_LARGE = "RESPONSE_TOO_LARGE";
