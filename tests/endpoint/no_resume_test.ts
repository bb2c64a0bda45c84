/** Version 3 towards a peer that does not offer `resume`: each connection is a session of its own. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Endpoint, EndpointConfig, Link, LinkEvents, Transport } from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster, text } from "../support/cluster.ts";
import { undelivered, watch } from "../support/watch.ts";
import { changing, indexOf } from "./on_the_line.ts";

/** A link takes so much beyond what the system takes before it says stop. */
const HIGH_WATER = 1_048_576;

/** A system's socket buffer: it takes whole chunks at once while there is room. */
class Room {
  bytes: number;
  flow: () => void = () => {};

  constructor(bytes: number) {
    this.bytes = bytes;
  }

  /** From now on there is always room. */
  open(): void {
    this.bytes = Infinity;
    this.flow();
  }
}

/** A dialed link that writes into such a buffer, and tells when it has drained. */
class BufferedLink implements Link {
  readonly info: Link["info"];
  readonly #inner: Link;
  readonly #room: Room;
  #events: LinkEvents | undefined;
  #held: Uint8Array[] = [];

  constructor(inner: Link, room: Room) {
    this.info = inner.info;
    this.#inner = inner;
    this.#room = room;
    room.flow = () => this.#flow();
  }

  get bufferedBytes(): number {
    return this.#held.reduce((sum, chunk) => sum + chunk.length, 0);
  }

  open(events: LinkEvents): void {
    this.#events = events;
    this.#inner.open({
      onData: (chunk) => events.onData(chunk),
      onEnd: () => events.onEnd(),
      onClose: (error) => events.onClose(error),
      onDrain: () => {},
    });
  }

  write(chunk: Uint8Array): boolean {
    if (this.#held.length === 0 && this.#takes(chunk)) return true;
    this.#held.push(chunk.slice());
    return this.bufferedBytes < HIGH_WATER;
  }

  pause(): void {
    this.#inner.pause();
  }

  resume(): void {
    this.#inner.resume();
  }

  end(): void {
    this.#inner.end();
  }

  close(): void {
    this.#inner.close();
  }

  #takes(chunk: Uint8Array): boolean {
    if (this.#room.bytes < chunk.length) return false;
    this.#room.bytes -= chunk.length;
    this.#inner.write(chunk);
    return true;
  }

  #flow(): void {
    const held = this.#held.splice(0);
    while (held.length > 0 && this.#takes(held[0]!)) held.shift();
    this.#held = held;
    if (held.length === 0) this.#events?.onDrain();
  }
}

/** What "a" dials through has only so much room. */
function buffered(transport: Transport, room: Room): Transport {
  return {
    scheme: transport.scheme,
    capabilities: transport.capabilities,
    dial: async (address, options) =>
      new BufferedLink(await transport.dial(address, options), room),
    listen: (address, options) => transport.listen(address, options),
  };
}

/** Takes `resume` out of the hello. */
function withoutResume(transport: Transport): Transport {
  return changing(transport, (body) => {
    if (indexOf(body, bytes('"hello"')) < 0) return body;
    return bytes(text(body).replace(/"resume",?/, ""));
  });
}

async function pair(
  cluster: Cluster,
  options: Partial<EndpointConfig> = {},
  room: Room = new Room(Infinity),
): Promise<[Endpoint, Endpoint]> {
  const plain = { poolSize: 1, compression: { enabled: false } } as const;
  const transport = buffered(withoutResume(cluster.network.transport("a")), room);
  const a = await cluster.start("a", { ...plain, transports: [transport], ...options });
  const b = await cluster.start("b", plain);
  await cluster.connect(a, "b");
  const { version, capabilities } = a.peer("b")!;
  assert.deepEqual([version, capabilities.includes("resume")], [3, false]);
  return [a, b];
}

/** A payload of some size that begins with its number. */
function numbered(number: number): Uint8Array {
  const payload = new Uint8Array(60_000);
  new DataView(payload.buffer).setUint32(0, number);
  return payload;
}

function numberOf(payload: Uint8Array): number {
  return new DataView(payload.buffer, payload.byteOffset).getUint32(0);
}

describe("version 3 without resume", () => {
  it(
    "sends what waited for room once, and in order",
    inCluster(async (cluster) => {
      const room = new Room(400_000);
      const [a, b] = await pair(cluster, { maxPendingMessages: 10 }, room);
      const got: number[] = [];
      b.onMessage(({ payload }) => void got.push(numberOf(payload)));
      const numbers = Array.from({ length: 50 }, (_, i) => i);
      const sends = Promise.all(numbers.map((i) => a.send("b", numbered(i))));
      await cluster.environment.advance(20);
      assert.ok(got.length < numbers.length);
      room.open();
      await cluster.environment.run(sends);
      await cluster.environment.advance(100);
      assert.deepEqual(got, numbers);
    }),
  );

  it(
    "has flushed when all is written",
    inCluster(async (cluster) => {
      const room = new Room(400_000);
      const [a, b] = await pair(cluster, {}, room);
      const sent = watch(a.send("b", new Uint8Array(1_000_000)));
      const flushed = watch(a.flush("b"));
      await cluster.environment.advance(100);
      assert.deepEqual([sent.outcome, flushed.outcome], ["resolved", "pending"]);
      room.open();
      await cluster.environment.advance(100);
      assert.equal(flushed.outcome, "resolved");
      assert.equal(b.tryReceive()?.payload.length, 1_000_000);
      const idle = watch(a.flush("b"));
      await cluster.environment.advance(0);
      assert.equal(idle.outcome, "resolved");
    }),
  );

  it(
    "refuses acknowledged sends, for there are no acknowledgements",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster);
      const sent = watch(a.send("b", bytes("1"), { acknowledged: true }));
      await cluster.environment.advance(100);
      assert.equal(sent.outcome, "rejected");
      assert.equal(sent.error!.code, "UnsupportedProtocol");
      assert.deepEqual([inbox(b), a.stats().errors], [[], {}]);
    }),
  );

  it(
    "reports an acknowledged send that waited for the connection, and sends the rest",
    inCluster(async (cluster) => {
      const transports = [withoutResume(cluster.network.transport("a"))];
      const a = await cluster.start("a", { poolSize: 1, transports });
      const b = await cluster.start("b", { poolSize: 1 });
      const events = undelivered(a);
      const connected = a.connect({ nodeId: "b", address: cluster.address("b") });
      const acknowledged = watch(a.send("b", bytes("1"), { acknowledged: true }));
      const accepted = watch(a.send("b", bytes("2")));
      await cluster.environment.run(connected);
      await cluster.environment.advance(100);
      assert.deepEqual([acknowledged.outcome, accepted.outcome], ["rejected", "resolved"]);
      assert.equal(acknowledged.error!.code, "UnsupportedProtocol");
      assert.deepEqual(events, ["unsent 1"]);
      assert.deepEqual(inbox(b), ["2"]);
    }),
  );

  it(
    "has flushed what waited for the connection when it is written",
    inCluster(async (cluster) => {
      const room = new Room(400_000);
      const transports = [buffered(withoutResume(cluster.network.transport("a")), room)];
      const compression = { enabled: false };
      const a = await cluster.start("a", { poolSize: 1, transports, compression });
      const b = await cluster.start("b", { poolSize: 1 });
      const connected = a.connect({ nodeId: "b", address: cluster.address("b") });
      const sent = watch(a.send("b", new Uint8Array(1_000_000)));
      const flushed = watch(a.flush("b"));
      await cluster.environment.run(connected);
      await cluster.environment.advance(100);
      assert.deepEqual([sent.outcome, flushed.outcome], ["resolved", "pending"]);
      room.open();
      await cluster.environment.advance(100);
      assert.equal(flushed.outcome, "resolved");
      assert.equal(b.tryReceive()?.payload.length, 1_000_000);
    }),
  );
});
