/**
 * What a connection costs before its first message, step by step and as a whole; and what a message
 * costs the protocol core, without a socket.
 */

import {
  Connection,
  type ConnectionConfig,
  type ConnectionSink,
} from "../src/protocol/connection.ts";
import {
  acceptWelcome,
  encodeHello,
  encodeWelcome,
  type Hello,
  judgeHello,
  type LocalIdentity,
  type Negotiated,
  parseAnswer,
  parseHello,
} from "../src/protocol/handshake.ts";
import { ReplayWindow } from "../src/protocol/replay.ts";

const MESSAGES = 1000;
const MESSAGE_BYTES = 64;
const NONCE = new Uint8Array(16).fill(7);
const MAX_SKEW_MS = 300_000;
/** The wall clock of the benches; each judged hello is a millisecond younger than the last. */
let clock = 1_700_000_000_000;
/** Keeps results alive, so that no work can be left out. */
let sink = 0;

function identity(nodeId: string): LocalIdentity {
  return {
    nodeId,
    clusterName: "bench",
    authToken: undefined,
    incarnation: "0123456789abcdef",
    minVersion: 1,
    maxVersion: 2,
    capabilities: ["lz4"],
    maxMessageSize: 16 * 1024 * 1024,
    maxClockSkewMs: MAX_SKEW_MS,
    keepaliveMs: 30_000,
  };
}

const dialer = identity("a");
const listener = identity("b");

/** What `judgeHello` made of a hello; a refusal would make the bench measure something else. */
function judge(hello: Hello, replay: ReplayWindow): Negotiated {
  const verdict = judgeHello(hello, listener, { wallClockMs: clock, replay });
  if ("reject" in verdict) throw new Error(`Cannot bench the handshake: ${verdict.reason}`);
  return verdict.accept;
}

function configOf(role: "dialer" | "listener", replay: ReplayWindow): ConnectionConfig {
  return {
    role,
    local: role === "dialer" ? dialer : listener,
    expectNodeId: role === "dialer" ? listener.nodeId : undefined,
    nonce: NONCE,
    wallClockOffset: clock,
    replay,
    handshakeDeadline: 5_000,
    ioTimeoutMs: 30_000,
    keepaliveMs: 30_000,
    lz4: undefined,
    zstd: undefined,
    compressMethod: "lz4",
    compressMinSize: 256,
    crc32: () => 0,
    healthCheckMs: undefined,
  };
}

/** Takes every message and counts it. */
class Counter implements ConnectionSink {
  messages = 0;
  readonly writable = true;

  flush(): void {}
  flushSoon(): void {}
  onSuspect(): void {}
  onGoaway(): void {}
  onDrained(): void {}
  onIdentity(): undefined {}
  onHello(): undefined {}
  onEstablished(): void {}
  onSilent(): void {}

  wantsMessage(): boolean {
    return true;
  }

  onMessage(payload: Uint8Array): void {
    if (payload.length === MESSAGE_BYTES) this.messages++;
  }

  onError(error: Error): void {
    throw error;
  }
}

interface Pair {
  readonly from: Connection;
  readonly to: Connection;
  readonly received: Counter;
}

/** Two connections that have shaken hands. */
function connect(): Pair {
  const replay = new ReplayWindow({ maxSkewMs: MAX_SKEW_MS });
  const received = new Counter();
  const from = new Connection(configOf("dialer", replay), new Counter(), 0);
  const to = new Connection(configOf("listener", replay), received, 0);
  deliver(from, to);
  deliver(to, from);
  if (!from.open || !to.open) throw new Error("Cannot bench: the handshake is not complete");
  return { from, to, received };
}

/** Moves what waits in one connection's outbox to the other, as one chunk. */
function deliver(from: Connection, to: Connection): void {
  const chunk = from.outbox.take();
  if (chunk === undefined) throw new Error("Cannot bench: nothing was sent");
  to.handleBytes(chunk, 1);
}

function exchange({ from, to, received }: Pair, message: Uint8Array): void {
  const before = received.messages;
  for (let i = 0; i < MESSAGES; i++) from.send(message);
  deliver(from, to);
  if (received.messages - before !== MESSAGES) throw new Error("Cannot bench: messages were lost");
  sink += received.messages;
}

const helloBody = encodeHello(dialer, listener.nodeId, clock, NONCE);
const hello = parseHello(helloBody);
const negotiated = judge(hello, new ReplayWindow({ maxSkewMs: MAX_SKEW_MS }));
const welcomeBody = encodeWelcome(negotiated, listener);
const REMEMBERED = 65_536;
const seen = new ReplayWindow({ maxSkewMs: MAX_SKEW_MS, capacity: REMEMBERED });
for (let i = 0; i < REMEMBERED; i++) judgeNext();

/** Judges the same hello with a nonce never seen. */
function judgeNext(): Negotiated {
  clock++;
  return judge({ ...hello, timestamp: clock, nonce: String(clock) }, seen);
}

const steps = "handshake, step by step";
Deno.bench("encodeHello", { group: steps }, () => {
  sink += encodeHello(dialer, listener.nodeId, clock, NONCE).length;
});
Deno.bench("parseHello", { group: steps }, () => {
  sink += parseHello(helloBody).protocolVersion;
});
Deno.bench(`judgeHello, ${REMEMBERED} nonces remembered`, { group: steps }, () => {
  sink += judgeNext().version;
});
Deno.bench("encodeWelcome", { group: steps }, () => {
  sink += encodeWelcome(negotiated, listener).length;
});
Deno.bench("parseAnswer and acceptWelcome", { group: steps }, () => {
  const answer = parseAnswer(welcomeBody);
  if (answer.type === "welcome") sink += acceptWelcome(answer, dialer, listener.nodeId).version;
});

const whole = "two connections without a socket";
const message = new Uint8Array(MESSAGE_BYTES).fill(7);
const pair = connect();
Deno.bench("handshake", { group: whole, baseline: true }, () => {
  sink += connect().received.messages;
});
Deno.bench(`${MESSAGES} messages of ${MESSAGE_BYTES} B`, { group: whole }, () => {
  exchange(pair, message);
});
Deno.bench(`handshake and ${MESSAGES} messages of ${MESSAGE_BYTES} B`, { group: whole }, () => {
  exchange(connect(), message);
});
