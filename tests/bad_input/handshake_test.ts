/** Rows 16, 17, 24, 26 and 27: handshakes that never end, come twice, or are not what they seem. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint, type RejectCode } from "../../mod.ts";
import { inScene, type Scene, within } from "./harness.ts";
import { RawListener, type RawPeer } from "./raw_peer.ts";
import { bytes, frame, hello, helloText, join, reject, welcome } from "./wire.ts";

const TIMEOUT_MS = 300;
const IMPATIENT = { connectTimeoutMs: TIMEOUT_MS };
/** The start of a TLS record that holds a ClientHello. */
const TLS_START = Uint8Array.of(22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3);

/** A deadline counts from the start, so nothing ends before it and everything soon after. */
function assertAtDeadline(tookMs: number): void {
  assert.ok(tookMs > TIMEOUT_MS - 50 && tookMs < TIMEOUT_MS + 500, `after ${tookMs} ms`);
}

/** Connects, writes one byte after the other with a pause between them, and says how long it lived. */
async function drip(scene: Scene, content: Uint8Array, pauseMs: number): Promise<number> {
  const started = performance.now();
  let tookMs = 0;
  await scene.refuses({ code: "Timeout", withinMs: 2_000 }, async () => {
    const peer = await scene.attacker();
    let at = 0;
    const drops = setInterval(() => peer.write(content.subarray(at, ++at)), pauseMs);
    await within(2_000, peer.gone, "not closed").finally(() => clearInterval(drops));
    tookMs = performance.now() - started;
    assert.ok(at < content.length, "the attacker had more to say");
    return peer;
  });
  return tookMs;
}

/** Sends a frame instead of a hello and wants this reject, and one HandshakeFailed. */
async function isRejected(scene: Scene, content: Uint8Array, code: RejectCode): Promise<string> {
  let answer: Record<string, unknown> = {};
  const error = await scene.refuses({ code: "HandshakeFailed" }, async () => {
    const peer = await scene.attacker();
    await peer.write(content);
    answer = await peer.answer();
    return peer;
  });
  assert.deepEqual([answer.type, answer.code], ["reject", code]);
  assert.equal((error as { rejectCode?: string }).rejectCode, code);
  return String(answer.reason);
}

describe("16. a connection that says nothing", () => {
  for (const strict of [false, true]) {
    it(
      `16. ends at the deadline (${strict ? "TLS" : "plain text"})`,
      inScene({ strict, victim: IMPATIENT }, async (scene) => {
        await scene.refuses({ code: "Timeout", withinMs: 2_000 }, async () => {
          const started = performance.now();
          const peer = await scene.attacker();
          await within(2_000, peer.gone, "not closed");
          assertAtDeadline(performance.now() - started);
          return peer;
        });
      }),
    );
  }

  it(
    "16. also where TLS is complete and the hello does not come",
    inScene({ strict: true, victim: IMPATIENT }, async (scene) => {
      const material = { ...await scene.credentials("mallory"), ca: scene.ca.ca };
      await scene.refuses(
        { code: "Timeout", withinMs: 2_000 },
        () => scene.attacker({ tls: material }),
      );
    }),
  );

  it(
    "16. a dialer waits no longer for a listener that says nothing",
    inScene({ victim: IMPATIENT }, async (scene) => {
      const listener = await RawListener.listen(() => {});
      const started = performance.now();
      await scene.dialFails("mallory", listener.address, "Timeout");
      assertAtDeadline(performance.now() - started);
      listener.close();
    }),
  );
});

describe("17. a byte every 50 ms", () => {
  it(
    "17. of a hello: the deadline is absolute",
    inScene({ victim: IMPATIENT }, async (scene) => {
      assertAtDeadline(await drip(scene, hello(), 50));
    }),
  );

  it(
    "17. of a TLS ClientHello: the deadline is absolute",
    inScene({ strict: true, victim: IMPATIENT }, async (scene) => {
      assertAtDeadline(await drip(scene, TLS_START, 50));
    }),
  );

  it(
    "17. of a welcome: the dialer's deadline is absolute",
    inScene({ victim: IMPATIENT }, async (scene) => {
      let drops: ReturnType<typeof setInterval> | undefined;
      const listener = await RawListener.listen((peer) => {
        let at = 0;
        drops = setInterval(() => peer.write(welcome().subarray(at, ++at)), 50);
      });
      const started = performance.now();
      await scene.dialFails("mallory", listener.address, "Timeout");
      assertAtDeadline(performance.now() - started);
      clearInterval(drops);
      listener.close();
    }),
  );
});

describe("24. a replayed hello", () => {
  it(
    "24. recorded from a node on the way, gets in once and never again",
    inScene({}, async (scene) => {
      const recorded = await record("victim");
      const first = await scene.attacker();
      await first.write(frame(recorded));
      assert.equal((await first.answer()).type, "welcome");
      await isRejected(scene, frame(recorded), "REPLAYED");
      first.end();
      await first.gone;
      await isRejected(scene, frame(recorded), "REPLAYED");
    }),
  );

  it(
    "24. is known by its nonce, however it is written",
    inScene({}, async (scene) => {
      const fields = { timestamp: Date.now(), nonce: "AAECAwQFBgcICQoLDA0ODw==" };
      await scene.insider(fields);
      await isRejected(scene, frame(` ${helloText(fields)} `), "REPLAYED");
      await isRejected(scene, hello({ ...fields, more: true }), "REPLAYED");
      await isRejected(scene, hello({ ...fields, timestamp: Date.now() + 1000 }), "REPLAYED");
      await scene.insider({ ...fields, nonce: "AAECAwQFBgcICQoLDA0OEA==" });
    }),
  );

  it(
    "24. is too old after the skew window, and from the future before it",
    inScene({}, async (scene) => {
      for (const skew of [-301_000, 301_000, -1e12]) {
        const fields = { timestamp: Date.now() + skew, nonce: "AAECAwQFBgcICQoLDA0ODw==" };
        await isRejected(scene, hello(fields), "STALE_TIMESTAMP");
      }
    }),
  );
});

describe("16. a dialer that was refused", () => {
  it(
    "16. and does not hang up is cut off within a second",
    inScene({}, async (scene) => {
      await scene.refuses({ code: "HandshakeFailed" }, async () => {
        const peer = await scene.attacker({ stubborn: true });
        await peer.write(hello({ node_id: "" }));
        assert.equal((await peer.answer()).type, "reject");
        return peer;
      });
    }),
  );
});

describe("26. JSON that is meant to harm", () => {
  const deep = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;
  const withField = (text: string) => helloText().replace("{", `{${text},`);
  const malformed: [string, string | Uint8Array][] = [
    ["no JSON", "GET / HTTP/1.1\r\nHost: victim\r\n\r\n"],
    ["an array", "[]"],
    ["null", "null"],
    ["a string", '"hello"'],
    ["an empty object", "{}"],
    ["two objects", `${helloText()}{}`],
    ["a byte order mark", `\ufeff${helloText()}`],
    ["invalid UTF-8", join(bytes(withField('"x":"')), Uint8Array.of(0xc3, 0x28))],
    ["an overlong encoding", join(bytes('{"x":"'), Uint8Array.of(0xc0, 0x80), bytes('"}'))],
    [
      "a lone surrogate in UTF-8",
      join(bytes('{"x":"'), Uint8Array.of(0xed, 0xa0, 0x80), bytes('"}')),
    ],
    ["depth 9", withField(`"x":${deep(8)}`)],
    ["depth 1,900", withField(`"x":${deep(1_900)}`)],
    ["brackets that never close", `{"x":${"[".repeat(4_000)}`],
    ["a duplicate key", withField('"node_id":"canary"')],
    ["a duplicate key, escaped", withField('"node\\u005fid":"canary"')],
    ["__proto__ twice", withField('"__proto__":{},"__proto__":{}')],
    ["required fields in __proto__ only", '{"__proto__":{"type":"hello","node_id":"x"}}'],
    [
      "a node id from constructor",
      '{"type":"hello","protocol_version":2,"capabilities":[],' +
      '"constructor":{"prototype":{"node_id":"x"}}}',
    ],
    ["65 capabilities", helloText({ capabilities: Array(65).fill("a") })],
    ["1,300 capabilities", helloText({ capabilities: Array(1_300).fill("") })],
    ["capabilities that are no strings", helloText({ capabilities: ["lz4", null] })],
    ["a number as node id", helloText({ node_id: 7 })],
    ["an empty node id", helloText({ node_id: "" })],
    ["version 2.5", helloText({ protocol_version: 2.5 })],
    ["version 0", helloText({ protocol_version: 0 })],
    ["version -1", helloText({ protocol_version: -1 })],
    ["version 1e300", helloText().replace(":2,", ":1e300,")],
    ["a version as text", helloText({ protocol_version: "2" })],
    ["a size of 2^60", helloText({ max_message_size: 2 ** 60 })],
    ["a size of 0", helloText({ max_message_size: 0 })],
    ["a keepalive of 2^53", helloText({ keepalive_ms: 2 ** 53 })],
    ["a keepalive of 0", helloText({ keepalive_ms: 0 })],
    ["a timestamp that is none", helloText({ timestamp: "now" })],
    ["a nonce of 3 bytes", helloText({ timestamp: 0, nonce: "AAAA" })],
    ["a lower version above the higher", helloText({ min_protocol_version: 3 })],
    ["a welcome", helloText({ type: "welcome" })],
  ];
  for (const [name, content] of malformed) {
    it(
      `26. ${name} is MALFORMED`,
      inScene({}, async (scene) => {
        await isRejected(scene, frame(content), "MALFORMED");
        assert.equal(({} as Record<string, unknown>).node_id, undefined);
      }),
    );
  }

  const harmless: [string, string][] = [
    ["__proto__ with other fields", withField('"__proto__":{"node_id":"canary","polluted":1}')],
    ["constructor", withField('"constructor":{"prototype":{"polluted":1}},"toString":1')],
    ["depth 8", withField(`"x":${deep(7)}`)],
    [
      "a thousand unknown keys",
      withField(Array.from({ length: 400 }, (_, i) => `"k${i}":0`).join()),
    ],
    ["64 capabilities", helloText({ capabilities: Array(64).fill("constructor") })],
  ];
  for (const [name, content] of harmless) {
    it(
      `26. ${name} changes nothing`,
      inScene({}, async (scene) => {
        const peer = await scene.attacker();
        await peer.write(frame(content));
        const answer = await peer.answer();
        assert.equal(answer.type, "welcome", JSON.stringify(answer));
        assert.notEqual(scene.victim.peer("mallory"), undefined);
        assert.equal(({} as Record<string, unknown>).polluted, undefined);
      }),
    );
  }

  it(
    "26. a million keys do not fit before the handshake is complete",
    inScene({}, async (scene) => {
      await scene.refuses({ code: "InvalidFrame" }, async () => {
        const peer = await scene.attacker();
        peer.write(frame(`{"x":[${"0,".repeat(300_000)}0]}`));
        return peer;
      });
    }),
  );
});

describe("27. text that would write into a log", () => {
  const evil = "\x1b[2J\x1b]0;owned\x07\r\nINFO all is well\u202e\0";

  const hellos: [string, Record<string, unknown>, RejectCode][] = [
    ["node_id", { node_id: evil }, "MALFORMED"],
    ["node_id of 300 bytes", { node_id: "x".repeat(300) }, "MALFORMED"],
    ["node_id with a space", { node_id: "all is well" }, "MALFORMED"],
    ["type", { type: evil }, "MALFORMED"],
    ["incarnation", { incarnation: evil }, "MALFORMED"],
    ["nonce", { timestamp: 0, nonce: evil }, "MALFORMED"],
    ["cluster_name", { cluster_name: evil }, "CLUSTER_MISMATCH"],
    ["cluster_name of 3,000 bytes", { cluster_name: "x".repeat(3_000) }, "CLUSTER_MISMATCH"],
    ["expect_node_id", { expect_node_id: evil }, "NODE_ID_MISMATCH"],
  ];
  for (const [name, fields, code] of hellos) {
    it(
      `27. in ${name} of a hello`,
      inScene({}, async (scene) => {
        const reason = await isRejected(scene, hello(fields), code);
        assert.match(reason, /^[ -~]{1,200}$/);
      }),
    );
  }

  it(
    "27. in a capability: it is nobody's",
    inScene({}, async (scene) => {
      await scene.insider({ capabilities: [evil, "lz4"] });
      assert.deepEqual(scene.victim.peer("mallory")?.capabilities, ["lz4"]);
    }),
  );

  it(
    "27. an auth token is in no reason and no error",
    inScene({ everybody: { authToken: "open-sesame" } }, async (scene) => {
      for (
        const fields of [{}, { auth_token: "open-sesam" }, { auth_token: `open-sesame${evil}` }]
      ) {
        const reason = await isRejected(scene, hello(fields), "AUTH_FAILED");
        assert.doesNotMatch(reason, /sesam|owned/);
        assert.doesNotMatch(scene.reported.at(-1)!.message, /sesam|owned/);
      }
      await scene.insider({ auth_token: "open-sesame" });
    }),
  );

  const answers: [string, Uint8Array][] = [
    ["the reason of a reject", reject("AUTH_FAILED", evil)],
    ["3,500 bytes of reason", reject("AUTH_FAILED", "x".repeat(3_500))],
    ["the code of a reject", reject(evil, "no")],
    ["the type", reject("no", "no").map((byte, i) => i === 14 ? 27 : byte)],
    ["the node id of a welcome", welcome({ node_id: evil })],
    ["a capability of a welcome", welcome({ capabilities: [evil] })],
    ["no JSON at all", frame(evil)],
  ];
  for (const [name, content] of answers) {
    it(
      `27. in ${name}: what the dialer's error says is escaped and cut`,
      inScene({}, async (scene) => {
        const listener = await RawListener.listen((peer: RawPeer) => peer.write(content));
        const error = await scene.dialFails("mallory", listener.address, "HandshakeFailed");
        assert.match(error.message, /^[ -~…]{1,500}$/);
        listener.close();
      }),
    );
  }

  it(
    "27. node ids that come and go are not remembered without bound",
    inScene({ victim: { maxConnectionsPerHost: 2_000 } }, async (scene) => {
      for (let i = 0; i < 1_200; i++) {
        const peer = await scene.insider({ node_id: `passer-by-${i}` });
        peer.end();
        await peer.gone;
        peer.close();
      }
      await scene.beats();
      const known = scene.victim.peers().length;
      assert.ok(known <= 1_026, `${known} peers`);
    }),
  );
});

/** The body of the hello that a real endpoint sends to this node. */
async function record(nodeId: string): Promise<Uint8Array> {
  const traveller = new Endpoint({ nodeId: "traveller", security: "development" });
  await traveller.start();
  const bodies: Promise<Uint8Array | undefined>[] = [];
  const listener = await RawListener.listen((peer) => {
    const body = peer.nextFrame();
    bodies.push(body);
    body.then(() => peer.close());
  });
  await assert.rejects(traveller.connect({ nodeId, address: listener.address }));
  await traveller.close({ drainMs: 0 });
  listener.close();
  const body = await bodies[0];
  assert.ok(body !== undefined);
  return body;
}
