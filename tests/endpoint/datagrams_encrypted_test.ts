/** Endpoints with keys over datagrams: what somebody on the way sees, and what he can do. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Endpoint, type EndpointConfig, HandlerError } from "../../mod.ts";
import { encodeContent, encodeHelloPacket, readHello } from "../../src/protocol/datagram/packet.ts";
import { PacketSeal } from "../../src/protocol/datagram/seal.ts";
import { PACKET, TAG_BYTES } from "../../src/protocol/datagram/types.ts";
import { parsePublicKey, readSigningKey, verifySignature } from "../../src/runtime/ed25519.ts";
import { packetCrypto } from "../../src/runtime/packet_crypto.ts";
import type { DatagramSocket } from "../../src/transport/transport.ts";
import { concat } from "../protocol/wire_bytes.ts";
import { bytes, Cluster, inbox, text } from "../support/cluster.ts";
import { DatagramNetwork, type Seen } from "../support/datagram_network.ts";
import { indexOf, newKeys } from "./on_the_line.ts";

type Options = Partial<EndpointConfig>;
type Name = "a" | "b";

const KEYS = { a: newKeys(), b: newKeys() };
const ADDRESSES = { a: "dgram://a:1", b: "dgram://b:1" };
const TRUSTED = { a: KEYS.a.publicKey, b: KEYS.b.publicKey };
/** The bytes of a hello's content before its envelope's payload: version, names, numbers, length. */
const BEFORE_PAYLOAD = 1 + 2 + 2 + 8 + 8 + 4;

class Line {
  readonly cluster = new Cluster();
  readonly environment = this.cluster.environment;
  readonly network = new DatagramNetwork(this.environment, {}, 1);

  async start(nodeId: Name, options: Options = {}): Promise<Endpoint> {
    return await this.cluster.start(nodeId, {
      listen: ADDRESSES[nodeId],
      transports: [this.network.transport(nodeId)],
      signing: { privateKey: KEYS[nodeId].privateKey, trustedKeys: TRUSTED },
      ...options,
    });
  }

  async dial(a: Endpoint): Promise<void> {
    await this.environment.run(a.connect({ nodeId: "b", address: ADDRESSES.b }));
  }

  async pair(options: Options = {}): Promise<[Endpoint, Endpoint]> {
    const pair: [Endpoint, Endpoint] = [
      await this.start("a", options),
      await this.start("b", options),
    ];
    await this.dial(pair[0]);
    await this.environment.until(() => pair[1].peer("a")?.health === "up");
    return pair;
  }

  /** What was sent over links: all but handshakes. */
  get onLinks(): Seen[] {
    return this.network.seen.filter(({ packet }) => kindOf(packet) >= PACKET.data);
  }

  /** Keeps the next packet of a kind back. */
  async caught(kind: number, send: () => Promise<unknown>): Promise<Seen> {
    const { network } = this;
    network.filter = ({ packet }) => kindOf(packet) !== kind;
    await send();
    network.filter = () => true;
    return network.seen.findLast(({ packet }) => kindOf(packet) === kind)!;
  }
}

function onLine(test: (line: Line) => Promise<void>): () => Promise<void> {
  return async () => {
    const line = new Line();
    try {
      await test(line);
    } finally {
      await line.cluster.close();
      await line.environment.advance(10_000);
    }
    assert.equal(line.environment.pendingTimers, 0);
    assert.equal(line.network.sockets, 0);
  };
}

const kindOf = (packet: Uint8Array): number => packet[1]! & 15;

/** What signs for a node as a program without encryption would. */
function signerOf(nodeId: Name): PacketSeal {
  const key = readSigningKey(KEYS[nodeId].privateKey);
  return new PacketSeal({
    nodeId,
    sign: (message) => key.sign(message),
    verify: verifySignature,
    trustedKeys: new Map([["a", [parsePublicKey(TRUSTED.a)!]], ["b", [
      parsePublicKey(TRUSTED.b)!,
    ]]]),
    maxAgeMs: 60_000,
    encryption: packetCrypto,
  });
}

/** The JSON in a signed hello, without what stands before it. */
function jsonIn(body: Uint8Array): Uint8Array {
  return body.slice(indexOf(body, bytes('{"type"')));
}

describe("somebody who reads datagrams between nodes with keys", () => {
  it(
    "sees neither payloads nor topics, answers, errors or names",
    onLine(async (line) => {
      const [a, b] = await line.pair();
      b.handle("topic-of-request", () => bytes("payload-of-answer"));
      b.handle("topic-of-error", () => {
        throw new HandlerError("CODE_OF_ERROR", "text-of-error");
      });
      await a.send("b", bytes("payload-of-message"), { topic: "topic-of-message" });
      await b.send("a", bytes("payload-of-message"), { topic: "topic-of-message" });
      const ask = (topic: string) => a.request("b", bytes("payload-of-request"), { topic });
      const answer = await line.environment.run(ask("topic-of-request"));
      assert.equal(text(answer), "payload-of-answer");
      const error = await line.environment.run(ask("topic-of-error").catch((error) => error));
      assert.equal(error.remoteCode, "CODE_OF_ERROR");
      assert.deepEqual([inbox(a), inbox(b)], [["payload-of-message"], ["payload-of-message"]]);
      await line.environment.run(a.close({ drainMs: 0 }));
      const seen = line.onLinks;
      assert.ok(new Set(seen.map(({ packet }) => kindOf(packet))).size >= 7);
      for (const { packet } of seen) {
        for (const part of ["topic-of", "payload-of", "text-of", "CODE_OF"]) {
          assert.equal(indexOf(packet, bytes(part)), -1, part);
        }
        // An envelope would begin so: version, and the name of who signed it.
        for (const name of ["a", "b"]) {
          assert.equal(indexOf(packet, concat(Uint8Array.of(1, 1), bytes(name))), -1);
        }
      }
    }),
  );

  it(
    "sees the same message as other bytes each time, and other public keys in each handshake",
    onLine(async (line) => {
      const [a] = await line.pair();
      for (let i = 0; i < 2; i++) {
        await a.send("b", bytes("the same"));
        await line.environment.run(a.disconnect("b"));
        await line.dial(a);
        await a.send("b", bytes("the same"));
      }
      await line.environment.advance(10);
      const sealed = line.onLinks.filter(({ packet }) => kindOf(packet) === PACKET.data)
        .map(({ packet }) => packet.subarray(26).join());
      assert.deepEqual([sealed.length, new Set(sealed).size], [4, 4]);
      const hellos = line.network.seen.map(({ packet }) => packet)
        .filter((packet) => kindOf(packet) === PACKET.hello)
        .map((packet) => readHello(packet).content)
        .filter((content) => content.length > 0)
        .map((content) => content.subarray(BEFORE_PAYLOAD, BEFORE_PAYLOAD + 33).join());
      assert.equal(hellos.length, 3);
      assert.equal(new Set(hellos).size, hellos.length);
      assert.ok(hellos.every((offer) => offer.startsWith("1,")));
    }),
  );
});

describe("somebody who changes datagrams between nodes with keys", () => {
  it(
    "gets nothing in, whatever byte it is, and what was sent arrives once all the same",
    onLine(async (line) => {
      const [a, b] = await line.pair();
      const { packet } = await line.caught(PACKET.data, () => a.send("b", bytes("ahoy")));
      const inject = (copy: Uint8Array) => line.network.inject(copy, ADDRESSES.a, ADDRESSES.b);
      const before = b.stats().datagrams;
      for (let at = 0; at < packet.length; at++) inject(packet.with(at, packet[at]! ^ 0x10));
      await line.environment.advance(10);
      const { forged, invalid, unknown, replayed } = b.stats().datagrams;
      assert.deepEqual(inbox(b), []);
      assert.equal(b.peer("a")!.state, "active");
      // Tags are nobody's then; magic, version, and numbers above the limit are none.
      assert.equal(unknown - before.unknown, TAG_BYTES);
      assert.equal(invalid - before.invalid, 2 + 5);
      assert.equal(forged - before.forged, packet.length - TAG_BYTES - 7);
      assert.equal(replayed, before.replayed);
      inject(packet);
      inject(packet);
      await line.environment.advance(10);
      assert.deepEqual(inbox(b), ["ahoy"]);
      assert.equal(b.stats().datagrams.replayed - before.replayed, 1);
    }),
  );

  it(
    "can send nobody's packets back to him, nor those of a link over another",
    onLine(async (line) => {
      const [a, b] = await line.pair();
      const { packet } = await line.caught(PACKET.data, () => a.send("b", bytes("ahoy")));
      // With the tag that the packets for "a" have.
      const { packet: other } = await line.caught(PACKET.data, () => b.send("a", bytes("back")));
      const reflected = packet.slice();
      reflected.set(other.subarray(2, 18), 2);
      line.network.inject(reflected, ADDRESSES.b, ADDRESSES.a);
      await line.environment.advance(10);
      assert.deepEqual([inbox(a), a.stats().datagrams.forged], [[], 1]);
      await line.environment.run(a.disconnect("b"));
      await line.dial(a);
      const { packet: later } = await line.caught(PACKET.data, () => a.send("b", bytes("later")));
      const moved = packet.slice();
      moved.set(later.subarray(2, 18), 2);
      line.network.inject(moved, ADDRESSES.a, ADDRESSES.b);
      await line.environment.advance(10);
      assert.deepEqual([inbox(b), b.stats().datagrams.forged], [[], 1]);
    }),
  );

  it(
    "can't put a key of his own into a hello, nor into a welcome",
    onLine(async (line) => {
      const own = packetCrypto.newExchange().publicKey;
      const a = await line.start("a", { reconnect: { enabled: false } });
      const b = await line.start("b");
      const outcomes: [number, string][] = [
        [PACKET.hello, "HandshakeFailed IDENTITY_REQUIRED"],
        [PACKET.welcome, "IdentityMismatch undefined"],
      ];
      for (const [kind, outcome] of outcomes) {
        line.network.filter = (seen) => {
          const { packet, from, to } = seen;
          const at = keyAt(packet);
          if (kindOf(packet) !== kind || at === undefined) return true;
          const changed = packet.slice();
          changed.set(own, at);
          line.network.inject(changed, from, to);
          return false;
        };
        const error = await line.dial(a).then(() => undefined, (error) => error);
        assert.equal(`${error?.code} ${error?.rejectCode}`, outcome);
        assert.deepEqual(inbox(b), []);
      }
      line.network.filter = () => true;
      // The place of the one that was accepted is free again after a while.
      await line.environment.advance(10_000);
      assert.equal(b.peers().length, 0);
      await line.dial(a);
    }),
  );

  /** Where the public key stands in a hello or welcome, as docs/datagrams.md has it. */
  function keyAt(packet: Uint8Array): number | undefined {
    if (kindOf(packet) === PACKET.welcome) return 18 + BEFORE_PAYLOAD + TAG_BYTES + 1;
    if (kindOf(packet) !== PACKET.hello) return undefined;
    const { content } = readHello(packet);
    if (content.length === 0) return undefined;
    return content.byteOffset - packet.byteOffset + BEFORE_PAYLOAD + 1;
  }
});

describe("a node that signs and has no good key to encrypt with", () => {
  const offers: [what: string, offer: Uint8Array, rejectCode: string, reason: RegExp][] = [
    ["no key", new Uint8Array(0), "IDENTITY_REQUIRED", /no key to encrypt with/],
    ["a key of small order", new Uint8Array(33).with(0, 1), "MALFORMED", /key .* is of no use/],
  ];
  for (const [what, offer, rejectCode, reason] of offers) {
    it(
      `is refused as a dialer with ${what}, and told so`,
      onLine(async (line) => {
        const a = await line.start("a", { reconnect: { enabled: false } });
        const b = await line.start("b");
        const signer = signerOf("a");
        const errors: unknown[] = [];
        b.addEventListener("warning", ({ detail }) => errors.push(detail.error));
        line.network.filter = (seen) => {
          const { packet, from, to } = seen;
          if (kindOf(packet) !== PACKET.hello) return true;
          const hello = readHello(packet);
          if (hello.content.length === 0) return true;
          const tag = packet.subarray(2, 18);
          const around = concat(Uint8Array.of(PACKET.hello), tag, hello.cookie);
          const body = concat(offer, jsonIn(hello.content.subarray(0, -64)));
          const wallClock = line.environment.wallClock();
          const content = signer.seal("b", body, 0, wallClock, around);
          line.network.inject(encodeHelloPacket(tag, { ...hello, content }), from, to);
          return false;
        };
        const error = await line.dial(a).then(() => undefined, (error) => error);
        assert.equal(error?.rejectCode, rejectCode);
        assert.match(error.message, reason);
        const [told] = errors as [{ rejectCode: string; message: string }];
        assert.deepEqual([told.rejectCode, b.stats().datagrams.refused], [rejectCode, 1]);
        assert.match(told.message, reason);
        assert.equal(b.peers().length, 0);
      }),
    );
  }

  it(
    "is refused as a listener",
    onLine(async (line) => {
      const a = await line.start("a", { reconnect: { enabled: false } });
      const signer = signerOf("b");
      const own = new Uint8Array(TAG_BYTES).fill(7);
      const socket: DatagramSocket = await line.network.transport("b").bind!(ADDRESSES.b, {
        maxQueued: 1,
        maxQueuedBytes: 1,
        onPacket: (packet, from) => {
          const tag = packet.slice(2, 18);
          const { content } = readHello(packet);
          if (content.length === 0) {
            socket.send(concat(Uint8Array.of(0xda, 0x11), tag, Uint8Array.of(1, 1)), from);
            return;
          }
          const publicKey = content.subarray(BEFORE_PAYLOAD + 1, BEFORE_PAYLOAD + 33);
          const around = concat(Uint8Array.of(PACKET.welcome), tag, publicKey);
          const json = '{"type":"welcome","protocol_version":3,"node_id":"b",' +
            '"capabilities":["signed"],"max_message_size":1000}';
          const wallClock = line.environment.wallClock();
          const body = signer.seal("a", concat(own, bytes(json)), 0, wallClock, around);
          socket.send(encodeContent(PACKET.welcome, tag, body), from);
        },
        onDrain: () => {},
        onError: () => {},
      });
      const error = await line.dial(a).then(() => undefined, (error) => error);
      assert.deepEqual([error?.code, error?.rejectCode], ["HandshakeFailed", "IDENTITY_REQUIRED"]);
      assert.match(error.message, /no key to encrypt with/);
      assert.equal(a.peers().length, 0);
      await socket.close();
    }),
  );
});

describe("nodes with keys over datagrams", () => {
  it(
    "stay encrypted behind another address, and after a restart",
    onLine(async (line) => {
      const [a, b] = await line.pair({ keepaliveIntervalSecs: 1 });
      line.network.mask(ADDRESSES.a, "dgram://moved:9");
      await a.send("b", bytes("moved to another port"));
      await line.environment.advance(500);
      await b.send("a", bytes("found"));
      await line.environment.advance(10);
      assert.deepEqual([inbox(a), inbox(b)], [["found"], ["moved to another port"]]);
      assert.equal(b.peer("a")!.connections[0]!.remoteAddress, "dgram://moved:9");
      await line.environment.run(b.close({ drainMs: 0 }));
      const again = await line.start("b");
      await line.environment.until(() => again.peer("a")?.health === "up");
      await a.send("b", bytes("welcome back"));
      await line.environment.advance(10);
      assert.deepEqual(inbox(again), ["welcome back"]);
      for (const endpoint of [a, again]) {
        assert.equal(endpoint.peers()[0]!.connections[0]!.encrypted, true);
      }
    }),
  );

  it(
    "take a welcome that answers an earlier hello",
    onLine(async (line) => {
      const a = await line.start("a");
      await line.start("b");
      // A second retry with another cookie comes before the welcome to the hello with the first.
      line.network.trouble = { latencyMs: 350 };
      await line.dial(a);
      const hellos = line.network.sentTo(ADDRESSES.b).map(({ packet }) => packet)
        .filter((packet) => kindOf(packet) === PACKET.hello);
      const cookies = new Set(hellos.map((packet) => readHello(packet).cookie.join()));
      assert.ok(cookies.size > 2, `${cookies.size} cookies`);
    }),
  );
});
