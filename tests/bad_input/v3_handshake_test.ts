/** Rows 16 to 21, 24, 26 and 27 in version 3: what hello and welcome say beside who we are. */

import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { describe, it } from "node:test";
import type { RejectCode } from "../../mod.ts";
import { TestCa } from "../support/certs.ts";
import { inScene, type Scene } from "./harness.ts";
import { RawListener } from "./raw_peer.ts";
import { bytes, frame, header, helloText, join, welcome } from "./wire.ts";
import {
  failure,
  frameV3,
  helloFieldsV3,
  helloV3,
  nextOfKind,
  textOf,
  topicOf,
} from "./wire_v3.ts";

const ID = "0123456789abcdef0123456789abcdef";
const EVIL = "\x1b[2J\x1b]0;owned\x07\r\nINFO all is well\u202e\0";

/** Sends a hello and wants this reject, and one error of this code. */
async function isRejected(scene: Scene, content: Uint8Array, code: RejectCode): Promise<string> {
  let answer: Record<string, unknown> = {};
  await scene.refuses({ code: "HandshakeFailed" }, async () => {
    const peer = await scene.attacker();
    await peer.write(content, frameV3({ payload: "secret" }));
    answer = await peer.answer();
    return peer;
  });
  assert.deepEqual([answer.type, answer.code], ["reject", code]);
  assert.deepEqual(scene.delivered, []);
  return String(answer.reason);
}

/** A private key, as PEM. */
function newKey(): string {
  return generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" })
    .toString();
}

/** The raw public key of a new pair, in base64. */
function newPublicKey(): string {
  const spki = generateKeyPairSync("ed25519").publicKey.export({ type: "spki", format: "der" });
  return btoa(String.fromCharCode(...Uint8Array.from(spki).slice(-32)));
}

/** A welcome of version 3. */
function welcomeV3(fields: Record<string, unknown> = {}): Uint8Array {
  return welcome({
    protocol_version: 3,
    capabilities: ["resume", "streams"],
    incarnation: "00000000000000bb",
    session_generation: 0,
    session: { id: ID, resumed: false, received: [0, 0, 0] },
    ...fields,
  });
}

describe("16. silence after a hello of version 3", () => {
  it(
    "16. of a dialer that announced a key and proves none",
    inScene({ victim: { connectTimeoutMs: 300 } }, async (scene) => {
      await scene.refuses({ code: "Timeout", withinMs: 1_500 }, async () => {
        const peer = await scene.attacker();
        await peer.write(helloV3({ public_key: `${"A".repeat(43)}=` }));
        assert.equal((await peer.answer()).type, "welcome");
        return peer;
      });
      assert.equal(scene.victim.peer("mallory"), undefined);
    }),
  );

  it(
    "16. a frame of a dialer that announced a key, in place of the proof",
    inScene({}, async (scene) => {
      await scene.refuses({ code: "HandshakeFailed" }, async () => {
        const peer = await scene.attacker();
        await peer.write(
          helloV3({ public_key: `${"A".repeat(43)}=` }),
          frameV3({ payload: "secret" }),
        );
        return peer;
      });
      assert.deepEqual(scene.delivered, []);
      assert.equal(scene.victim.peer("mallory"), undefined);
    }),
  );

  it(
    "16. a proof that does not hold",
    inScene({ victim: { identity: { privateKey: newKey() } } }, async (scene) => {
      await scene.refuses({ code: "IdentityMismatch" }, async () => {
        const peer = await scene.attacker();
        await peer.write(
          helloV3({ public_key: newPublicKey() }),
          frame(JSON.stringify({ type: "proof", signature: `${"B".repeat(85)}A==` })),
          frameV3({ payload: "secret" }),
        );
        return peer;
      });
      assert.deepEqual(scene.delivered, []);
    }),
  );
});

describe("17. a byte every 50 ms of a proof", () => {
  it(
    "17. the deadline is absolute",
    inScene({ victim: { connectTimeoutMs: 400 } }, async (scene) => {
      await scene.refuses({ code: "Timeout", withinMs: 1_500 }, async () => {
        const peer = await scene.attacker();
        await peer.write(helloV3({ public_key: `${"A".repeat(43)}=` }), header(100));
        const drops = setInterval(() => peer.write(bytes(" ")), 50);
        peer.gone.then(() => clearInterval(drops));
        return peer;
      });
    }),
  );
});

describe("19. a certificate for one node that says it is another, in version 3", () => {
  it(
    "19. as a dialer, of version 3",
    inScene({ strict: true }, async (scene) => {
      const material = { ...await scene.credentials("mallory"), ca: scene.ca.ca };
      for (const fields of [{}, { session: { id: ID, received: [0, 0, 0] } }]) {
        await scene.refuses({ code: "IdentityMismatch" }, async () => {
          const peer = await scene.attacker({ tls: material });
          await peer.write(
            helloV3({ node_id: "canary", ...fields }),
            frameV3({ payload: "secret" }),
          );
          assert.equal((await peer.answer()).code, "AUTH_FAILED");
          return peer;
        });
      }
      assert.deepEqual(scene.delivered, []);
    }),
  );

  it(
    "19. as a listener, of version 3",
    inScene({ strict: true }, async (scene) => {
      const material = { ...await scene.credentials("mallory"), ca: scene.ca.ca };
      const listener = await RawListener.listen((peer) => {
        peer.write(welcomeV3({ node_id: "alice" }), frameV3({ payload: "secret" }));
      }, material);
      await scene.dialFails("mallory", listener.address, "IdentityMismatch");
      assert.deepEqual(scene.delivered, []);
      listener.close();
    }),
  );
});

describe("21. a certificate that proves nothing, in version 3", () => {
  it(
    "21. of another authority: no byte is delivered",
    inScene({ strict: true }, async (scene) => {
      const rogue = await TestCa.create();
      const material = { ...await rogue.issue("mallory"), ca: rogue.ca };
      await scene.refuses({ code: "HandshakeFailed" }, async () => {
        const peer = await scene.attacker({ tls: material });
        await peer.write(helloV3(), frameV3({ payload: "secret" }));
        return peer;
      });
      assert.deepEqual(scene.delivered, []);
    }),
  );
});

describe("24. a replayed hello of version 3", () => {
  it(
    "24. gets in once, and not with another session or generation either",
    inScene({}, async (scene) => {
      const fields = { timestamp: Date.now(), nonce: "AAECAwQFBgcICQoLDA0ODw==" };
      await scene.insider(helloFieldsV3(fields));
      await isRejected(scene, helloV3(fields), "REPLAYED");
      await isRejected(scene, helloV3({ ...fields, receive_window: 1 }), "REPLAYED");
    }),
  );
});

describe("26. members of a hello of version 3 that are meant to harm", () => {
  const malformed: [string, Record<string, unknown>][] = [
    ["a session that is text", { session: ID }],
    ["a session that is a list", { session: [ID, [0, 0, 0]] }],
    ["a session without an id", { session: { received: [0, 0, 0] } }],
    ["a session with an id of 31 digits", {
      session: { id: ID.slice(1), received: [0, 0, 0] },
    }],
    ["a session with an id of 64 digits", { session: { id: ID + ID, received: [0, 0, 0] } }],
    ["a session with an id that is no hex", {
      session: { id: `g${ID.slice(1)}`, received: [0, 0, 0] },
    }],
    ["a session that received nothing", { session: { id: ID } }],
    ["a session of two lanes", { session: { id: ID, received: [0, 0] } }],
    ["a session of four lanes", { session: { id: ID, received: [0, 0, 0, 0] } }],
    ["a session that received -1", { session: { id: ID, received: [0, -1, 0] } }],
    ["a session that received 1.5", { session: { id: ID, received: [0, 1.5, 0] } }],
    ["a session that received 2^53", { session: { id: ID, received: [0, 2 ** 53, 0] } }],
    ["a session that received text", { session: { id: ID, received: ["0", "0", "0"] } }],
    ["a session that received null", { session: { id: ID, received: [null, 0, 0] } }],
    ["a generation of -1", { session_generation: -1 }],
    ["a generation of 2^53", { session_generation: 2 ** 53 }],
    ["a generation that is text", { session_generation: "1" }],
    ["a window of 0", { receive_window: 0 }],
    ["a window of -1", { receive_window: -1 }],
    ["a window of 1.5", { receive_window: 1.5 }],
    ["a window of 2^53", { receive_window: 2 ** 53 }],
    ["a window that is text", { receive_window: "65536" }],
    ["-1 streams", { max_streams: -1 }],
    ["65,536 streams", { max_streams: 65_536 }],
    ["65 features", { features: Array(65).fill("x") }],
    ["a feature of 65 characters", { features: ["x".repeat(65)] }],
    ["an empty feature", { features: [""] }],
    ["a feature that would write into a log", { features: [EVIL] }],
    ["features that are an object", { features: { length: 1 } }],
    ["a key of 31 bytes", { public_key: `${"A".repeat(42)}==` }],
    ["a key that is no base64", { public_key: "-".repeat(44) }],
    ["a key that is a number", { public_key: 7 }],
    ["an incarnation of 15 digits", { incarnation: "0".repeat(15) }],
  ];
  for (const [name, fields] of malformed) {
    it(
      `26. ${name} is MALFORMED`,
      inScene({}, async (scene) => {
        await isRejected(scene, helloV3(fields), "MALFORMED");
      }),
    );
  }

  it(
    "26. infinite numbers, as JSON writes them, are MALFORMED",
    inScene({}, async (scene) => {
      const text = helloText(helloFieldsV3({ receive_window: 7 }));
      for (const number of ["1e309", "-1e309", "1e20", "-0.5"]) {
        const content = frame(text.replace('"receive_window":7', `"receive_window":${number}`));
        await isRejected(scene, content, "MALFORMED");
      }
    }),
  );

  it(
    "26. the same in a hello of version 2 is nobody's",
    inScene({}, async (scene) => {
      await scene.insider({ session: 7, receive_window: -1, features: EVIL, max_streams: "no" });
      assert.equal(scene.victim.peer("mallory")?.version, 2);
    }),
  );

  it(
    "26. a million digits of a session do not fit before the handshake is complete",
    inScene({}, async (scene) => {
      await scene.refuses({ code: "InvalidFrame" }, async () => {
        const peer = await scene.attacker();
        await peer.write(helloV3({ session: { id: "0".repeat(1_000_000), received: [] } }));
        return peer;
      });
    }),
  );
});

describe("26. a welcome of version 3 that is meant to harm", () => {
  const session = (fields: Record<string, unknown>) => ({
    session: { id: ID, resumed: false, received: [0, 0, 0], ...fields },
  });
  const answers: [string, Record<string, unknown>][] = [
    [
      "resumes a session that was not named",
      { session_generation: undefined, ...session({ resumed: true }) },
    ],
    [
      "resumes a session that there never was, and received something",
      session({ resumed: true, received: [1, 0, 0] }),
    ],
    ["received something in a new session", session({ received: [0, 1, 0] })],
    ["received a negative number", session({ received: [0, -1, 0] })],
    ["names no session", { session: undefined }],
    ["names a session without `resumed`", session({ resumed: undefined })],
    ["has a capability nobody offered", { capabilities: ["resume", "signed"] }],
    ["chose version 4", { protocol_version: 4 }],
    ["chose version 0", { protocol_version: 0 }],
    ["allows messages of 0 bytes", { max_message_size: 0 }],
    ["is of another cluster", { cluster_name: EVIL }],
    ["has a clock of its own", { timestamp: 0 }],
    ["has a window of 0", { receive_window: 0 }],
    ["has a generation of -1", { session_generation: -1 }],
    ["has a key and no signature", { public_key: `${"A".repeat(43)}=` }],
    ["has a signature and no key", { signature: `${"A".repeat(86)}==` }],
  ];
  for (const [name, fields] of answers) {
    it(
      `26. ${name}`,
      inScene({}, async (scene) => {
        const listener = await RawListener.listen((peer) => {
          peer.write(welcomeV3(fields), frameV3({ payload: "secret" }));
        });
        const error = await scene.dialFails("mallory", listener.address, "HandshakeFailed");
        assert.match(error.message, /^[ -~…]{1,500}$/);
        assert.deepEqual(scene.delivered, []);
        listener.close();
      }),
    );
  }

  it(
    "26. what is right is believed",
    inScene({}, async (scene) => {
      const listener = await RawListener.listen((peer) => {
        peer.write(welcomeV3(), frameV3({ payload: "hello" }));
      });
      await scene.victim.connect({ nodeId: "mallory", address: listener.address });
      await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
      listener.close();
      await scene.victim.disconnect("mallory");
    }),
  );
});

describe("27. text of version 3 that would write into a log", () => {
  it(
    "27. a topic of a request is in no log line, and its answer says nothing of it",
    inScene({}, async (scene) => {
      const peer = await scene.insider(helloFieldsV3());
      const payload = join(topicOf(EVIL), bytes("\0\0\0\0"));
      await peer.write(frameV3({ kind: "request", topic: true, payload }));
      const answer = await nextOfKind(peer, "error");
      assert.match(textOf(answer!.payload.subarray(8)), /^[ -~]+$/);
    }),
  );

  it(
    "27. code and message of an answer: what the requester's error says is escaped and cut",
    inScene({}, async (scene) => {
      const peer = await scene.insider(helloFieldsV3());
      for (const message of [EVIL, EVIL.repeat(500), "x".repeat(60_000)]) {
        const asked = scene.victim.request("mallory", bytes("?"));
        const request = await nextOfKind(peer, "request");
        const payload = join(
          new Uint8Array(4),
          bytes([0, 0, 0, Number(request!.id)]),
          failure(EVIL, message),
        );
        await peer.write(frameV3({ kind: "error", id: Number(request!.id), payload }));
        const error = await asked.then(() => assert.fail("an answer"), (reason) => reason);
        assert.equal(error.code, "RemoteError");
        assert.match(error.message, /^[ -~…]{1,2000}$/);
        assert.match(error.remoteCode, /^[ -~…]{1,500}$/);
      }
    }),
  );

  for (const code of [0, 1, 2]) {
    it(
      `27. the reason of a goaway of code ${code}`,
      inScene({}, async (scene) => {
        const peer = await scene.insider(helloFieldsV3());
        await peer.write(
          frameV3({ kind: "goaway", payload: join(Uint8Array.of(0, code), bytes(EVIL)) }),
        );
        await scene.beats();
      }),
    );
  }
});
