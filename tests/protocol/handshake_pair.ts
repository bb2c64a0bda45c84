/** A dialer and a listener in one handshake, with somebody on the line who may change frames. */

import { TransportError } from "../../src/errors.ts";
import { lateRejection, type Negotiated } from "../../src/protocol/handshake.ts";
import {
  type HandshakeConfig,
  Handshaker,
  type HandshakeSink,
  type KeyIdentity,
} from "../../src/protocol/handshaker.ts";
import { ReplayWindow } from "../../src/protocol/replay.ts";
import { readSigningKey, sha256, verifySignature } from "../../src/runtime/ed25519.ts";
import { identity, utf8 } from "./identities.ts";
import { concat, hex } from "./wire_bytes.ts";

/** Milliseconds since the epoch, on both sides. */
export const NOW = 1_700_000_000_000;

/** A key as tests hold it. */
export interface TestKey {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** The same in base64. */
  readonly base64: string;
  sign(message: Uint8Array): Uint8Array;
}

// RFC 8032, section 7.1, tests 1 to 3.
export const KEY1: TestKey = key(
  "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
);
export const KEY2: TestKey = key(
  "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
);
export const KEY3: TestKey = key(
  "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
);

/** Our key, or none, and the keys of others by node id. */
export function keys(own: TestKey | undefined, trusted: Record<string, TestKey[]>): KeyIdentity {
  const lists = Object.entries(trusted).map(([nodeId, list]) =>
    [nodeId, list.map(({ publicKey }) => publicKey)] as const
  );
  return {
    publicKey: own?.publicKey,
    trustedKeys: new Map(lists),
    sign: (digest) => own!.sign(digest),
    verify: verifySignature,
    sha256,
  };
}

/** One side of a handshake and what came of it. */
export class Side {
  readonly handshaker: Handshaker;
  /** Frames it sent that are not yet delivered. */
  readonly outbox: string[] = [];
  agreed: Negotiated | undefined;
  error: TransportError | undefined;

  constructor(config: HandshakeConfig, sink: HandshakeSink) {
    const send = (body: Uint8Array): void => void this.outbox.push(new TextDecoder().decode(body));
    this.handshaker = new Handshaker(config, sink, send);
    this.handshaker.start(0);
  }

  /** Whether it has neither agreed nor failed. */
  get waits(): boolean {
    return this.agreed === undefined && this.error === undefined;
  }

  /** Takes a frame as a connection does; one that comes after the agreement may be a late reject. */
  take(frame: string): void {
    if (this.error !== undefined) return;
    const body = utf8(frame);
    if (this.agreed !== undefined) {
      this.error = lateRejection(body, this.agreed.nodeId);
      return;
    }
    try {
      this.agreed = this.handshaker.handleFrame(body, 0);
    } catch (error) {
      if (!(error instanceof TransportError)) throw error;
      this.error = error;
    }
    // A link may write over what it gave.
    body.fill(0x20);
  }
}

/** What is special about a handshake. */
export interface PairSetup {
  readonly dialer?: Partial<HandshakeConfig>;
  readonly listener?: Partial<HandshakeConfig>;
  readonly sink?: Partial<HandshakeSink>;
  /** Stands between the two: returns what arrives instead of a frame. */
  readonly tamper?: (frame: string, index: number) => string;
}

/** `node1` dials `node2`; both speak version 3, and nobody shows or demands a proof. */
export class Pair {
  readonly dialer: Side;
  readonly listener: Side;
  /** Every frame as it was sent. */
  readonly sent: string[] = [];
  readonly replay: ReplayWindow = new ReplayWindow({ maxSkewMs: 300_000 });
  readonly #tamper: (frame: string, index: number) => string;

  constructor({ dialer, listener, sink, tamper }: PairSetup = {}) {
    this.#tamper = tamper ?? ((frame) => frame);
    const config = { wallClockOffset: NOW, replay: this.replay };
    this.listener = new Side({
      ...config,
      role: "listener",
      local: identity({ nodeId: "node2", maxVersion: 3, capabilities: ["lz4", "resume"] }),
      nonce: new Uint8Array(16).fill(2),
      expectNodeId: undefined,
      ...listener,
    }, { onIdentity: () => undefined, onHello: () => undefined, ...sink });
    this.dialer = new Side({
      ...config,
      role: "dialer",
      local: identity({ nodeId: "node1", maxVersion: 3, capabilities: ["lz4", "resume"] }),
      nonce: new Uint8Array(16).fill(1),
      expectNodeId: "node2",
      ...dialer,
    }, { onIdentity: never, onHello: never });
  }

  /** Delivers frames until there are none. */
  run(): this {
    for (;;) {
      const before = this.sent.length;
      this.deliver(this.dialer, this.listener);
      this.deliver(this.listener, this.dialer);
      if (this.sent.length === before) return this;
    }
  }

  /** Delivers the frames of one side. */
  deliver(from: Side, to: Side): void {
    for (const frame of from.outbox.splice(0)) {
      this.sent.push(frame);
      to.take(this.#tamper(frame, this.sent.length - 1));
    }
  }
}

/** Both show their keys, know each other's, and demand the proof. */
export function provingPair(setup: PairSetup = {}): Pair {
  const shared = { prove: true, demandProof: () => true };
  return new Pair({
    ...setup,
    dialer: { ...shared, identity: keys(KEY1, { node2: [KEY2] }), ...setup.dialer },
    listener: { ...shared, identity: keys(KEY2, { node1: [KEY1] }), ...setup.listener },
  });
}

/** PKCS#8 around the seed (RFC 8410, section 7). */
function key(seed: string): TestKey {
  const der = concat(hex("302e020100300506032b657004220420"), hex(seed));
  const base64 = btoa(String.fromCharCode(...der));
  const { publicKey, sign } = readSigningKey(
    `-----BEGIN PRIVATE KEY-----\n${base64}\n-----END PRIVATE KEY-----\n`,
  );
  return { publicKey, sign, base64: btoa(String.fromCharCode(...publicKey)) };
}

function never(): never {
  throw new Error("a dialer asks nobody");
}
