/** Endpoints that sign every message and verify those of others. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  type Endpoint,
  type EndpointConfig,
  HandshakeError,
  type LaneName,
  TransportError,
} from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster, text } from "../support/cluster.ts";
import { type Change, changing, indexOf, type Keys, newKeys } from "./on_the_line.ts";

const LANES: readonly LaneName[] = ["control", "normal", "bulk"];
const [A, B, C, STRANGER] = [newKeys(), newKeys(), newKeys(), newKeys()];
/** Version, sender "a", recipient "b": how an envelope from one to the other begins. */
const ENVELOPE_START = Uint8Array.of(1, 1, 97, 1, 98);
const SEQUENCE_AT = ENVELOPE_START.length;

type Options = Partial<EndpointConfig>;

function signing(own: Keys, trustedKeys: Record<string, string>, more: object = {}): Options {
  const { privateKey } = own;
  // So that a changed byte is found by the signature, and not before it.
  const plain = { checksum: "never", compression: { enabled: false }, poolSize: 1 } as const;
  return { ...plain, signing: { privateKey, trustedKeys, ...more } };
}

const trusted = { a: A.publicKey, b: B.publicKey, c: C.publicKey };
const asA = () => signing(A, trusted);
const asB = () => signing(B, trusted);

async function pair(
  cluster: Cluster,
  options: { a?: Options; b?: Options } = {},
): Promise<[Endpoint, Endpoint]> {
  const a = await cluster.start("a", { ...asA(), ...options.a });
  const b = await cluster.start("b", { ...asB(), ...options.b });
  await cluster.connect(a, "b");
  await cluster.pooled(a, b, 1);
  return [a, b];
}

/** What "a" writes is changed on its way. */
function line(cluster: Cluster, change: Change): Options {
  return { transports: [changing(cluster.network.transport("a"), change)] };
}

/** The part of a frame that is an envelope from "a" to "b"; undefined where it has none. */
function envelopeIn(body: Uint8Array): Uint8Array | undefined {
  const at = indexOf(body, ENVELOPE_START);
  return at < 0 ? undefined : body.subarray(at);
}

/** The errors that an endpoint tells of. */
function warnings(endpoint: Endpoint): TransportError[] {
  const errors: TransportError[] = [];
  endpoint.addEventListener("warning", ({ detail: { error } }) => {
    if (error !== undefined) errors.push(error);
  });
  return errors;
}

describe("two endpoints that sign", () => {
  it(
    "agree on it, and messages of every lane and size arrive as they were sent",
    inCluster(async (cluster) => {
      const maxMessageSize = 300_000;
      const [a, b] = await pair(cluster, { a: { maxMessageSize }, b: { maxMessageSize } });
      for (const [x, y] of [[a, "b"], [b, "a"]] as const) {
        assert.ok(x.peer(y)!.capabilities.includes("signed"));
      }
      const sent: string[] = [];
      for (const lane of LANES) {
        for (const size of [0, 1, 1_000, 65_536, 65_537, 299_000]) {
          const payload = new Uint8Array(size).fill(size % 251);
          sent.push(`${lane} ${size}`);
          await a.send("b", payload, { lane, topic: `${lane} ${size}` });
        }
      }
      await cluster.environment.run(a.flush("b"));
      const got: string[] = [];
      for (let m = b.tryReceive(); m !== undefined; m = b.tryReceive()) {
        got.push(m.topic!);
        assert.equal(m.topic, `${m.lane} ${m.payload.length}`);
        assert.ok(m.payload.every((byte) => byte === m.payload.length % 251));
      }
      assert.deepEqual(got.toSorted(), sent.toSorted());
    }),
  );

  it(
    "put every message into an envelope of its own on the wire, and never in the clear",
    inCluster(async (cluster) => {
      const sequences: bigint[] = [];
      let naked = 0;
      const watching = line(cluster, (body) => {
        const at = indexOf(body, bytes("secret"));
        const envelope = envelopeIn(body);
        if (at >= 0 && envelope === undefined) naked++;
        if (envelope !== undefined) {
          const view = new DataView(envelope.buffer, envelope.byteOffset);
          sequences.push(view.getBigUint64(SEQUENCE_AT));
        }
        return body;
      });
      const [a, b] = await pair(cluster, { a: watching });
      b.handle("ask", ({ payload }) => payload);
      b.onStream("log", () => {});
      for (let i = 0; i < 5; i++) await a.send("b", bytes("secret"));
      await cluster.environment.run(a.request("b", bytes("secret"), { topic: "ask" }));
      const stream = await a.openStream("b", { topic: "log", payload: bytes("secret") });
      await cluster.environment.run(stream.writable.getWriter().write(bytes("secret")));
      await cluster.environment.run(a.flush("b"));
      assert.equal(naked, 0);
      assert.equal(sequences.length, 8);
      assert.equal(new Set(sequences).size, 8);
      assert.deepEqual(inbox(b), Array(5).fill("secret"));
    }),
  );

  it(
    "carry requests, answers and streams",
    inCluster(async (cluster) => {
      const { environment } = cluster;
      const [a, b] = await pair(cluster);
      b.handle("double", ({ payload }) => bytes(text(payload).repeat(2)));
      b.onStream("echo", (stream) => stream.readable.pipeTo(stream.writable));
      const answer = await environment.run(a.request("b", bytes("ab"), { topic: "double" }));
      assert.equal(text(answer), "abab");
      const stream = await a.openStream("b", { topic: "echo" });
      const data = Uint8Array.from({ length: 400_000 }, (_, i) => i * 7);
      const writer = stream.writable.getWriter();
      const written = writer.write(data).then(() => writer.close());
      let at = 0;
      const read = (async () => {
        for await (const chunk of stream.readable) {
          assert.deepEqual(chunk, data.subarray(at, at + chunk.length));
          at += chunk.length;
        }
      })();
      await environment.run(Promise.all([written, read]));
      assert.equal(at, data.length);
    }),
  );

  it(
    "lose and double nothing when connections break: what goes out again is the same envelope",
    inCluster(async (cluster) => {
      const reconnect = { initialBackoffMs: 10, maxBackoffMs: 20 };
      const [a, b] = await pair(cluster, { a: { reconnect } });
      for (let i = 0; i < 200; i++) {
        await cluster.environment.run(a.send("b", bytes(`${i}`)));
        if (i % 20 === 10) cluster.network.reset(cluster.address("b"));
        if (i % 3 === 0) await cluster.environment.advance(1);
      }
      await cluster.environment.run(a.flush("b"));
      assert.deepEqual(inbox(b), Array.from({ length: 200 }, (_, i) => `${i}`));
      assert.equal(b.stats().errors.IdentityMismatch, undefined);
      assert.ok(a.stats().reconnections > 0);
    }, { latencyMs: 5 }),
  );

  it(
    "report what was not delivered as it was given, without its envelope",
    inCluster(async (cluster) => {
      const [a] = await pair(cluster, { a: { reconnect: { enabled: false } } });
      const events: string[] = [];
      a.addEventListener("undelivered", ({ detail }) => events.push(text(detail.payload)));
      cluster.network.blackHoles.add(cluster.address("b"));
      await a.send("b", bytes("small"));
      await a.send("b", bytes("large".repeat(20_000)));
      await cluster.environment.advance(5);
      cluster.network.reset(cluster.address("b"));
      await cluster.environment.advance(5);
      assert.deepEqual(events, ["small", "large".repeat(20_000)]);
    }),
  );

  it(
    "go on after a restart of either",
    inCluster(async (cluster) => {
      const { environment } = cluster;
      const [a, b] = await pair(cluster);
      for (let i = 0; i < 50; i++) await a.send("b", bytes("x"));
      await environment.run(a.close());
      assert.equal(inbox(b).length, 50);
      const again = await cluster.start("a", asA());
      await cluster.connect(again, "b");
      await environment.run(again.send("b", bytes("again"), { acknowledged: true }));
      assert.deepEqual(inbox(b), ["again"]);
    }),
  );
});

/** What somebody on the line does to the message "second", and what the receiver says of it. */
const FORGERIES: readonly [name: string, why: RegExp, change: () => Change][] = [
  ["changes a byte of the payload", /the signature is wrong/, () => (body) => {
    const at = indexOf(body, bytes("second"));
    if (at >= 0) body[at]! ^= 1;
    return body;
  }],
  ["changes a byte of the signature", /the signature is wrong/, () => (body) => {
    if (indexOf(body, bytes("second")) >= 0) body[body.length - 10]! ^= 1;
    return body;
  }],
  ["changes the number", /the signature is wrong/, () => (body) => {
    const envelope = envelopeIn(body);
    if (envelope !== undefined && indexOf(body, bytes("second")) >= 0) {
      envelope[SEQUENCE_AT + 7]! ^= 64;
    }
    return body;
  }],
  ["puts it in without an envelope", /no signed envelope/, () => (body) => {
    const envelope = envelopeIn(body);
    if (envelope === undefined || indexOf(body, bytes("second")) < 0) return body;
    const plain = new Uint8Array(body.length - envelope.length + 6);
    plain.set(body.subarray(0, body.length - envelope.length));
    plain.set(bytes("second"), plain.length - 6);
    return plain;
  }],
  ["gives the one before it a second time", /it was taken before/, () => {
    let before: Uint8Array | undefined;
    return (body) => {
      const envelope = envelopeIn(body);
      if (envelope === undefined) return body;
      if (before === undefined) before = envelope.slice();
      else if (indexOf(body, bytes("second")) >= 0) envelope.set(before);
      return body;
    };
  }],
  ["says it is from somebody else", /it is signed by "c"/, () => (body) => {
    const envelope = envelopeIn(body);
    if (envelope !== undefined && indexOf(body, bytes("second")) >= 0) envelope[2] = 99;
    return body;
  }],
  ["puts it under another topic", /the signature is wrong/, () => (body) => {
    const at = indexOf(body, bytes("topic"));
    if (at >= 0) body.set(bytes("other"), at);
    return body;
  }],
  ["makes a stream of it", /the signature is wrong/, () => (body) => {
    // Kind 5, stream-open, instead of 0, data: bits 8 to 11 of the flags.
    if (indexOf(body, bytes("second")) >= 0) body[0]! |= 5;
    return body;
  }],
  ["gives it to whom it is not for", /it is for "c"/, () => (body) => {
    const envelope = envelopeIn(body);
    if (envelope !== undefined && indexOf(body, bytes("second")) >= 0) envelope[4] = 99;
    return body;
  }],
];

describe("somebody on the line who", () => {
  for (const [name, why, change] of FORGERIES) {
    it(
      `${name} is found out: the session ends, the sender learns of it, nobody else is harmed`,
      inCluster(async (cluster) => {
        const { environment } = cluster;
        const [a, b] = await pair(cluster, { a: line(cluster, change()) });
        const c = await cluster.start("c", signing(C, trusted));
        await cluster.connect(c, "b");
        await cluster.pooled(c, b, 1);
        const told = warnings(b);
        const undelivered: string[] = [];
        a.addEventListener("undelivered", ({ detail: { fate, payload } }) => {
          undelivered.push(`${fate} ${text(payload)}`);
        });
        const beats = (async () => {
          for (let i = 0; i < 20; i++) {
            await c.send("b", bytes(`beat ${i}`));
            await environment.advance(10);
          }
        })();
        await a.send("b", bytes("first."));
        await environment.advance(50);
        const forged = a.send("b", bytes("second"), { acknowledged: true, topic: "topic" });
        const outcome = forged.then(() => "resolved", ({ code }) => code);
        assert.equal(await environment.run(outcome), "ConnectionClosed");
        await cluster.pooled(a, b, 1);
        await environment.run(a.send("b", bytes("third."), { acknowledged: true }));
        await beats;
        await environment.run(c.flush("b"));
        const fromA: string[] = [];
        const fromC: string[] = [];
        for (let m = b.tryReceive(); m !== undefined; m = b.tryReceive()) {
          (m.from === "a" ? fromA : fromC).push(text(m.payload));
        }
        assert.deepEqual(fromA, ["first.", "third."]);
        assert.deepEqual(fromC, Array.from({ length: 20 }, (_, i) => `beat ${i}`));
        assert.deepEqual(undelivered, ["unknown second"]);
        assert.equal(b.stats().errors.IdentityMismatch, 1);
        const [error] = told;
        assert.ok(error instanceof TransportError);
        assert.deepEqual([error.code, error.peer], ["IdentityMismatch", "a"]);
        assert.match(error.message, why);
        assert.equal(c.stats().reconnections, 0);
      }),
    );
  }
});

describe("a peer whose signature is not trusted", () => {
  it(
    "is found out at its first message, by the wrong key",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, { a: signing(STRANGER, trusted) });
      const told = warnings(b);
      const sent = a.send("b", bytes("x"), { acknowledged: true }).then(() => "", (e) => e.code);
      assert.equal(await cluster.environment.run(sent), "ConnectionClosed");
      assert.equal(told[0]!.code, "IdentityMismatch");
      assert.match(told[0]!.message, /the signature is wrong/);
      assert.deepEqual(inbox(b), []);
    }),
  );

  it(
    "is found out at its first message, where no key is trusted for it",
    inCluster(async (cluster) => {
      const [a, b] = await pair(cluster, { b: signing(B, { c: C.publicKey }) });
      const told = warnings(b);
      const sent = a.send("b", bytes("x"), { acknowledged: true }).then(() => "", (e) => e.code);
      assert.equal(await cluster.environment.run(sent), "ConnectionClosed");
      assert.equal(told[0]!.code, "IdentityMismatch");
      assert.match(told[0]!.message, /no key is trusted for it/);
      assert.deepEqual(inbox(b), []);
    }),
  );

  it(
    "is found out where its clock, and so its messages, are too old",
    inCluster(async (cluster) => {
      const { environment } = cluster;
      const slow: EndpointConfig["environment"] = {
        wallClock: () => environment.wallClock() - 60_000,
        now: () => environment.now(),
        random: () => environment.random(),
        randomBytes: (length) => environment.randomBytes(length),
        setTimer: (delayMs, callback) => environment.setTimer(delayMs, callback),
      };
      const b = { ...signing(B, trusted, { maxAgeMs: 30_000 }), resumeWindowMs: 10_000 };
      const [a, receiver] = await pair(cluster, { a: { environment: slow }, b });
      const told = warnings(receiver);
      const sent = a.send("b", bytes("x"), { acknowledged: true }).then(() => "", (e) => e.code);
      assert.equal(await environment.run(sent), "ConnectionClosed");
      assert.match(told[0]!.message, /it is too old/);
      assert.deepEqual(inbox(receiver), []);
    }),
  );
});

describe("a peer that does not sign", () => {
  const identityRequired = (error: unknown) => {
    assert.ok(error instanceof HandshakeError, String(error));
    assert.equal(error.rejectCode, "IDENTITY_REQUIRED");
    return true;
  };

  it(
    "and whose key is trusted is refused as a dialer, typed on both sides",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { poolSize: 1 });
      const b = await cluster.start("b", asB());
      await assert.rejects(cluster.connect(a, "b"), identityRequired);
      await cluster.environment.advance(50);
      assert.deepEqual(b.stats().errors, { HandshakeFailed: 1 });
      assert.deepEqual([a.peers(), b.peers()], [[], []]);
    }),
  );

  it(
    "and whose key is trusted is not talked to as a listener",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", asA());
      const b = await cluster.start("b", { poolSize: 1 });
      const refused = (error: unknown) => error instanceof TransportError && error.peer === "b";
      await assert.rejects(cluster.connect(a, "b"), refused);
      await cluster.environment.advance(50);
      assert.deepEqual([a.peers(), inbox(b)], [[], []]);
    }),
  );

  it(
    "in version 2 is refused, too",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { ...asA(), maxProtocolVersion: 2 });
      await cluster.start("b", asB());
      await assert.rejects(cluster.connect(a, "b"), identityRequired);
    }),
  );

  it(
    "and has signed before is refused from then on",
    inCluster(async (cluster) => {
      const { environment } = cluster;
      // Nobody trusts a key of "a", so "a" need not sign; but then it did.
      const [a, b] = await pair(cluster, { b: signing(B, { c: C.publicKey }) });
      assert.ok(b.peer("a")!.capabilities.includes("signed"));
      await environment.run(a.close({ drainMs: 0 }));
      const again = await cluster.start("a", { poolSize: 1 });
      await assert.rejects(cluster.connect(again, "b"), identityRequired);
    }),
  );

  it(
    "and whose key nobody trusts is let in, unsigned",
    inCluster(async (cluster) => {
      const b = await cluster.start("b", signing(B, { c: C.publicKey }));
      const a = await cluster.start("a", { poolSize: 1 });
      await cluster.connect(a, "b");
      await cluster.environment.run(a.send("b", bytes("x"), { acknowledged: true }));
      assert.ok(!b.peer("a")!.capabilities.includes("signed"));
      assert.deepEqual(inbox(b), ["x"]);
    }),
  );
});
