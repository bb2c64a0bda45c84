/**
 * Over every transport that can be had here, with connections cut in the middle and with the
 * transport changing in the middle: what was accepted arrives once and in the order of its lane.
 */

import assert from "node:assert/strict";
import process from "node:process";
import { describe, it } from "node:test";
import { Endpoint, type EndpointConfig, type LaneName, type Message } from "../../mod.ts";
import { TestCa } from "../support/certs.ts";
import { Cutting } from "../support/cutting.ts";
import { until } from "../transport/link_recorder.ts";
import { newKeys } from "./on_the_line.ts";

const LANES: readonly LaneName[] = ["control", "normal", "bulk"];
const MESSAGES = 1_500;
const CUTS = 8;
/** Small ones, those around a fragment, and several fragments. */
const SIZES = [8, 20, 300, 5_000, 65_536, 8, 65_537, 40, 8, 150_000, 8, 8, 1_000];

/** What was sent, lane by lane, and what came. */
class Ledger {
  readonly sent = new Map<LaneName, number>();
  readonly received = new Map<LaneName, number>();
  arrived = 0;
  #problem: string | undefined;

  next(lane: LaneName): Uint8Array {
    const number = this.sent.get(lane) ?? 0;
    this.sent.set(lane, number + 1);
    const payload = new Uint8Array(SIZES[number % SIZES.length]!).fill(number);
    new DataView(payload.buffer).setUint32(0, number);
    return payload;
  }

  take({ payload, lane }: Message): void {
    const expected = this.received.get(lane) ?? 0;
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    const number = view.getUint32(0);
    const whole = payload.length === SIZES[number % SIZES.length] &&
      payload.subarray(4).every((byte) => byte === (number & 255));
    if (number !== expected || !whole) {
      this.#problem ??= `${lane} ${number} came, ${
        whole ? "" : "spoilt, "
      }in the place of ${expected}`;
    }
    this.received.set(lane, expected + 1);
    this.arrived++;
  }

  check(): void {
    assert.equal(this.#problem, undefined);
    assert.deepEqual([...this.received].sort(), [...this.sent].sort());
  }
}

interface Pair {
  readonly a: Endpoint;
  readonly b: Endpoint;
  readonly cutting: Cutting;
  readonly ledger: Ledger;
}

const KEYS = { a: newKeys(), b: newKeys() };

/** Mutual TLS, and keys for links that show no certificate. */
async function strict(): Promise<Record<"a" | "b", Partial<EndpointConfig>>> {
  const ca = await TestCa.create();
  const of = async (nodeId: "a" | "b"): Promise<Partial<EndpointConfig>> => ({
    security: "strict",
    tls: {
      ...await ca.issue(nodeId),
      ca: ca.ca,
      requireClientAuth: true,
      nodeIdVerification: "CommonName",
    },
    identity: {
      privateKey: KEYS[nodeId].privateKey,
      trustedKeys: { a: KEYS.a.publicKey, b: KEYS.b.publicKey },
    },
  });
  return { a: await of("a"), b: await of("b") };
}

/** `a` reaches `b` at these addresses, in a run of its own. */
async function withPair(
  listen: string[],
  security: "development" | "strict",
  test: (pair: Pair) => Promise<void>,
): Promise<void> {
  const common: Partial<EndpointConfig> = {
    security: "development",
    pool: { upgradeIntervalMs: 200 },
    reconnect: { initialBackoffMs: 1, maxBackoffMs: 20 },
  };
  const cutting = new Cutting();
  const own = security === "strict" ? await strict() : { a: {}, b: {} };
  const b = new Endpoint({ ...common, ...own.b, nodeId: "b", listen });
  const a = new Endpoint({ ...common, ...own.a, nodeId: "a" });
  for (const transport of a.transports) a.registerTransport(cutting.wrap(transport));
  const ledger = new Ledger();
  const undelivered: unknown[] = [];
  a.addEventListener("undelivered", ({ detail }) => undelivered.push(detail));
  try {
    await b.start();
    b.onMessage((message) => ledger.take(message));
    await a.start();
    await a.connect({ nodeId: "b", address: b.addresses });
    await test({ a, b, cutting, ledger });
    assert.deepEqual(undelivered, []);
    ledger.check();
  } finally {
    await Promise.all([a, b].map((endpoint) => endpoint.close({ drainMs: 0 })));
  }
}

/** Sends until `count` messages were accepted in all. */
async function send(a: Endpoint, ledger: Ledger, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const lane = LANES[i % LANES.length]!;
    await a.send("b", ledger.next(lane), { lane });
  }
}

function name(scheme: string): string {
  return `${scheme}-${crypto.randomUUID()}`;
}

/** The transports that need no certificates and no further permissions. */
const SCHEMES: Record<string, () => string> = {
  tcp: () => "tcp://127.0.0.1:0",
  ws: () => "ws://127.0.0.1:0",
  memory: () => `memory://${name("b")}`,
};
/** Those that are tried in strict mode. */
const STRICT: Record<string, () => string> = {
  tcp: () => "tcp://127.0.0.1:0",
  wss: () => "wss://127.0.0.1:0/ledger",
  unix: () => `unix:@hawser-${name("b")}`,
};

/** Why a transport is not to be had here. */
function missing(scheme: string): string | undefined {
  if (scheme === "unix" && process.platform !== "linux") return "no abstract names";
  const endpoint = new Endpoint({ nodeId: "a", security: "development" });
  return endpoint.transports.find((transport) => transport.scheme === scheme)!.unavailable;
}

/** Cuts again and again while messages are under way. */
async function storm({ a, ledger, cutting }: Pair): Promise<void> {
  const sending = send(a, ledger, MESSAGES);
  let cuts = 0;
  for (let i = 1; i <= CUTS; i++) {
    await until(() => ledger.arrived >= i * MESSAGES / (CUTS + 1), "the next messages");
    await until(() => cutting.links > 0, "a link to cut");
    cuts += cutting.cut();
  }
  await sending;
  await a.flush("b");
  assert.ok(cuts >= CUTS, `${cuts} cuts`);
  assert.equal(ledger.arrived, MESSAGES);
}

describe("over QUIC", { skip: missing("quic") }, () => {
  it(
    `strict: ${CUTS} cuts lose, repeat and mix up nothing`,
    () => withPair(["quic://127.0.0.1:0"], "strict", storm),
  );
});

describe("over WebTransport", { skip: missing("wt") }, () => {
  it(
    `strict: ${CUTS} cuts lose, repeat and mix up nothing`,
    () => withPair(["wt://127.0.0.1:0"], "strict", storm),
  );
});

describe("over every transport", () => {
  for (const [security, schemes] of [["development", SCHEMES], ["strict", STRICT]] as const) {
    for (const [scheme, address] of Object.entries(schemes)) {
      it(
        `${scheme}, ${security}: ${CUTS} cuts lose, repeat and mix up nothing`,
        { skip: missing(scheme) },
        () => withPair([address()], security, storm),
      );
    }
  }

  it("the transport changes in the middle, again and again", () =>
    withPair(
      Object.values(SCHEMES).map((address) => address()),
      "development",
      async ({ a, ledger, cutting }) => {
        const protocols = () => new Set(a.peer("b")!.connections.map(({ protocol }) => protocol));
        const seen = new Set<string>();
        const sending = send(a, ledger, MESSAGES);
        const turns = ["memory", "tcp", "memory", "tcp", "ws", "memory"];
        for (const [i, scheme] of turns.entries()) {
          for (const other of Object.keys(SCHEMES)) {
            if (other === scheme) cutting.switchOn(other);
            else cutting.switchOff(other);
          }
          await until(() => protocols().has(scheme), `a connection by ${scheme}`);
          for (const protocol of protocols()) seen.add(protocol);
          await until(() => ledger.arrived >= (i + 1) * MESSAGES / 8, "the next messages");
        }
        for (const scheme of Object.keys(SCHEMES)) cutting.switchOn(scheme);
        await sending;
        await a.flush("b");
        assert.equal(ledger.arrived, MESSAGES);
        assert.deepEqual([...seen].sort(), Object.keys(SCHEMES).sort());
      },
    ));

  it("moves to the best one by itself, while messages are under way", () =>
    withPair(
      Object.values(SCHEMES).map((address) => address()),
      "development",
      async ({ a, ledger, cutting }) => {
        cutting.switchOff("memory");
        cutting.switchOff("tcp");
        await until(
          () => a.peer("b")!.connections.some(({ protocol }) => protocol === "ws"),
          "a connection by ws",
        );
        const sending = send(a, ledger, MESSAGES);
        cutting.switchOn("memory");
        const allMoved = () =>
          a.peer("b")!.connections.every(({ protocol }) => protocol === "memory");
        await until(() => a.peer("b")!.connections.length > 0 && allMoved(), "the move");
        await sending;
        await a.flush("b");
        assert.equal(ledger.arrived, MESSAGES);
      },
    ));
});
