/** Rows 19 to 22 and 25: certificates and node ids that belong to somebody else. */

import assert from "node:assert/strict";
import process from "node:process";
import { describe, it } from "node:test";
import { TestCa } from "../support/certs.ts";
import { inScene, type Scene, within } from "./harness.ts";
import { RawListener, type RawTls } from "./raw_peer.ts";
import { hello, messageV2, welcome } from "./wire.ts";

type IssueOptions = Parameters<TestCa["issue"]>[1];

const ATTEMPTS = 200;
const DAY_MS = 86_400_000;
const EXPIRED = {
  notBefore: new Date(Date.now() - 3 * DAY_MS),
  notAfter: new Date(Date.now() - DAY_MS),
};
const NOT_YET = {
  notBefore: new Date(Date.now() + DAY_MS),
  notAfter: new Date(Date.now() + 3 * DAY_MS),
};

/** A certificate of the cluster's authority. */
async function issued(scene: Scene, name: string, options: IssueOptions = {}): Promise<RawTls> {
  return { ...await scene.ca.issue(name, options), ca: scene.ca.ca };
}

/** A certificate of an authority that nobody trusts. */
async function rogue(name: string): Promise<RawTls> {
  const ca = await TestCa.create();
  return { ...await ca.issue(name), ca: ca.ca };
}

/** A dialer that shows this certificate and says it is `nodeId` is refused. */
async function dialerIsRefused(scene: Scene, material: RawTls, nodeId: string): Promise<void> {
  let answer: Record<string, unknown> = {};
  await scene.refuses({ code: "IdentityMismatch" }, async () => {
    const peer = await scene.attacker({ tls: material });
    await peer.write(hello({ node_id: nodeId }), messageV2("secret"));
    answer = await peer.answer();
    return peer;
  });
  assert.deepEqual([answer.type, answer.code], ["reject", "AUTH_FAILED"]);
  assert.deepEqual(scene.delivered, []);
}

/** A listener that shows this certificate is not taken for `nodeId`, and is sent nothing. */
async function listenerIsRefused(scene: Scene, material: RawTls, nodeId: string): Promise<void> {
  let heard = 0;
  const listener = await RawListener.listen((peer) => {
    peer.nextFrame().then((body) => heard += body?.length ?? 0);
    peer.write(welcome({ node_id: nodeId }), messageV2("secret"));
  }, material);
  try {
    await scene.dialFails(nodeId, listener.address, "IdentityMismatch");
    assert.equal(heard, 0, "the hello went to the wrong node");
    assert.deepEqual(scene.delivered, []);
  } finally {
    listener.close();
  }
}

describe("19. a certificate for one node that says it is another", () => {
  for (const strict of ["CommonName", "SubjectAltName"] as const) {
    it(
      `19. as a dialer (${strict})`,
      inScene({ strict }, async (scene) => {
        const material = await issued(scene, "mallory");
        await dialerIsRefused(scene, material, "alice");
        await dialerIsRefused(scene, material, "canary");
        await dialerIsRefused(scene, material, "Mallory");
        await dialerIsRefused(scene, material, "mallory2");
        await dialerIsRefused(scene, material, "mallor");
      }),
    );

    it(
      `19. as a listener (${strict})`,
      inScene({ strict }, async (scene) => {
        const material = await issued(scene, "mallory");
        await listenerIsRefused(scene, material, "alice");
        await listenerIsRefused(scene, material, "MALLORY");
      }),
    );
  }

  it(
    "19. as a listener whose welcome names another than its certificate",
    inScene({ strict: true }, async (scene) => {
      const material = await issued(scene, "mallory");
      const listener = await RawListener.listen((peer) => {
        peer.write(welcome({ node_id: "alice" }), messageV2("secret"));
      }, material);
      await scene.dialFails("mallory", listener.address, "IdentityMismatch");
      assert.deepEqual(scene.delivered, []);
      listener.close();
    }),
  );

  it(
    "19. by a name in the part that is not asked for",
    inScene({ strict: "SubjectAltName" }, async (scene) => {
      const material = await issued(scene, "alice", { dnsNames: ["mallory"] });
      await dialerIsRefused(scene, material, "alice");
      await listenerIsRefused(scene, material, "alice");
    }),
  );

  it(
    "19. and the right one is let in",
    inScene({ strict: true }, async (scene) => {
      const peer = await scene.insider({}, { tls: await issued(scene, "mallory") });
      await peer.write(messageV2("it is me"));
      await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
      assert.equal(scene.victim.peer("mallory")?.identity?.nodeId, "mallory");
    }),
  );
});

describe("20. names that read as two", () => {
  const commonNames: [string, string[]][] = [
    ["two CNs", ["alice", "mallory"]],
    ["two CNs, the other way round", ["mallory", "alice"]],
    ["an empty CN", [""]],
    ["no CN", []],
    ["a CN with another in it", ["mallory,CN=alice"]],
    ["a CN with a line of its own", ["mallory\nCN=alice"]],
    ["a CN with NUL", ["alice\0.mallory"]],
    ["a CN with a space behind", ["alice "]],
    ["a CN that looks the same", ["\u0430lice"]],
    ["a CN with a zero-width space", ["alice\u200b"]],
  ];
  for (const [name, names] of commonNames) {
    it(
      `20. ${name}`,
      inScene({ strict: "CommonName" }, async (scene) => {
        const material = await issued(scene, "mallory", { commonNames: names });
        await dialerIsRefused(scene, material, "alice");
        await listenerIsRefused(scene, material, "alice");
      }),
    );
  }

  const dnsNames: [string, string[]][] = [
    ["a DNS name with another in it", ["mallory, DNS:alice"]],
    ["a DNS name with a quoted one in it", ['mallory", "DNS:alice']],
    ["a wildcard", ["*"]],
    ["a wildcard of a domain", ["*.lice", "a*"]],
    ["a DNS name with NUL", ["alice\0.mallory"]],
    ["a DNS name of other case", ["ALICE"]],
    ["a DNS name with a dot behind", ["alice."]],
    ["an address instead of a name", []],
  ];
  for (const [name, names] of dnsNames) {
    it(
      `20. ${name}`,
      inScene({ strict: "SubjectAltName" }, async (scene) => {
        const material = await issued(scene, "alice", { dnsNames: names });
        await dialerIsRefused(scene, material, "alice");
        await listenerIsRefused(scene, material, "alice");
      }),
    );
  }
});

/** Certificates that no dialer gets in with; undefined shows none. */
const DIALERS = {
  "no certificate": () => Promise.resolve({}),
  "a rogue authority": () => rogue("mallory"),
  "an expired certificate": (scene: Scene) => issued(scene, "mallory", EXPIRED),
  "a certificate not valid yet": (scene: Scene) => issued(scene, "mallory", NOT_YET),
  "a server's certificate": (scene: Scene) => issued(scene, "mallory", { usages: ["server"] }),
  "an authority's certificate": (scene: Scene) => issued(scene, "mallory", { isCa: true }),
};

/** Certificates that no listener is believed with. */
const LISTENERS = {
  "a rogue authority": DIALERS["a rogue authority"],
  "an expired certificate": DIALERS["an expired certificate"],
  "a certificate not valid yet": DIALERS["a certificate not valid yet"],
  "a client's certificate": (scene: Scene) => issued(scene, "mallory", { usages: ["client"] }),
  "an authority's certificate": DIALERS["an authority's certificate"],
};

/** A dialer that sends all it can as soon as its own TLS believes to be connected. */
async function breakIn(scene: Scene, material: RawTls): Promise<void> {
  const peer = await scene.attacker({ tls: material });
  await peer.write(hello(), messageV2("secret"));
  await within(1_000, peer.gone, "not closed");
  const answer = await peer.answer();
  assert.notEqual(answer.type, "welcome");
  peer.close();
}

async function trap(material: RawTls): Promise<{ listener: RawListener; heard: () => number }> {
  let heard = 0;
  const listener = await RawListener.listen((peer) => {
    peer.nextFrame().then((body) => heard += body?.length ?? 0);
    peer.write(welcome(), messageV2("secret"));
  }, material);
  return { listener, heard: () => heard };
}

describe("21. a certificate that proves nothing: no byte is delivered", () => {
  for (const [name, make] of Object.entries(DIALERS)) {
    it(
      `21. a dialer with ${name}`,
      inScene({ strict: true }, async (scene) => {
        const material = await make(scene);
        const code = name === "no certificate" ? "ClientCertificateRequired" : "HandshakeFailed";
        await scene.refuses({ code }, async () => {
          const peer = await scene.attacker({ tls: material });
          await peer.write(hello(), messageV2("secret"));
          return peer;
        });
        assert.deepEqual(scene.delivered, []);
        assert.equal(scene.victim.peer("mallory"), undefined);
      }),
    );
  }

  for (const [name, make] of Object.entries(LISTENERS)) {
    it(
      `21. a listener with ${name}`,
      inScene({ strict: true }, async (scene) => {
        const { listener, heard } = await trap(await make(scene));
        await scene.dialFails("mallory", listener.address, "HandshakeFailed");
        assert.deepEqual([heard(), scene.delivered], [0, []]);
        listener.close();
      }),
    );
  }

  it(
    "21. plain text to a TLS listener",
    inScene({ strict: true }, async (scene) => {
      await scene.refuses({ code: "HandshakeFailed" }, async () => {
        const peer = await scene.attacker();
        await peer.write(hello(), messageV2("secret"));
        return peer;
      });
      assert.deepEqual(scene.delivered, []);
    }),
  );

  it(
    "21. plain text from a listener",
    inScene({ strict: true }, async (scene) => {
      const listener = await RawListener.listen((peer) => peer.write(welcome(), messageV2("x")));
      await scene.dialFails("mallory", listener.address, "HandshakeFailed");
      assert.deepEqual(scene.delivered, []);
      listener.close();
    }),
  );

  it(
    `21. ${ATTEMPTS} attempts of dialers: none is let in`,
    inScene({ strict: true }, async (scene) => {
      await attackAsDialers(scene);
    }),
  );

  it(
    `21. ${ATTEMPTS} attempts of listeners: none is believed`,
    inScene({ strict: true }, async (scene) => {
      await attackAsListeners(scene);
    }),
  );
});

async function attackAsDialers(scene: Scene): Promise<void> {
  const before = failures(scene);
  const materials = await Promise.all(Object.values(DIALERS).map((make) => make(scene)));
  for (let done = 0; done < ATTEMPTS; done += 20) {
    const batch = Array.from({ length: 20 }, (_, i) => materials[(done + i) % materials.length]!);
    await Promise.all(batch.map((material) => breakIn(scene, material)));
  }
  await scene.when(
    () => failures(scene) === before + ATTEMPTS,
    1_000,
    () => JSON.stringify(scene.victim.stats().errors),
  );
  assert.deepEqual(scene.delivered, []);
  assert.equal(scene.victim.stats().connectionCount, 1, "only the canary");
}

async function attackAsListeners(scene: Scene): Promise<void> {
  const materials = await Promise.all(Object.values(LISTENERS).map((make) => make(scene)));
  const traps = await Promise.all(materials.map(trap));
  for (let i = 0; i < ATTEMPTS; i++) {
    const { address } = traps[i % traps.length]!.listener;
    const attempt = scene.victim.connect({ nodeId: "mallory", address });
    await assert.rejects(attempt, { code: "HandshakeFailed" });
  }
  assert.deepEqual(traps.map(({ heard }) => heard()), traps.map(() => 0));
  assert.deepEqual(scene.delivered, []);
  assert.equal(scene.victim.stats().connectionCount, 1, "only the canary");
  for (const { listener } of traps) listener.close();
}

function failures(scene: Scene): number {
  const { HandshakeFailed = 0, ClientCertificateRequired = 0 } = scene.victim.stats().errors;
  return HandshakeFailed + ClientCertificateRequired;
}

/** Whether this process may change its environment: `deno test --allow-net` may not. */
function maySetEnvironment(): boolean {
  try {
    const { NODE_TLS_REJECT_UNAUTHORIZED: before } = process.env;
    setRejectUnauthorized(before);
    return true;
  } catch {
    return false;
  }
}

function setRejectUnauthorized(value: string | undefined): void {
  if (value === undefined) delete process.env.NODE_TLS_REJECT_UNAUTHORIZED;
  else process.env.NODE_TLS_REJECT_UNAUTHORIZED = value;
}

describe("22. NODE_TLS_REJECT_UNAUTHORIZED=0", { skip: !maySetEnvironment() }, () => {
  it(
    "22. changes nothing, in either direction",
    inScene({ strict: true }, async (scene) => {
      const { NODE_TLS_REJECT_UNAUTHORIZED: before } = process.env;
      setRejectUnauthorized("0");
      try {
        for (const make of Object.values(DIALERS)) {
          // The attacker may see its end before the victim has reported it.
          const before = failures(scene);
          await breakIn(scene, await make(scene));
          await scene.when(() => failures(scene) > before, 1_000, () => "not reported");
        }
        for (const make of Object.values(LISTENERS)) {
          const { listener, heard } = await trap(await make(scene));
          await scene.dialFails("mallory", listener.address, "HandshakeFailed");
          assert.equal(heard(), 0);
          listener.close();
        }
        assert.deepEqual(scene.delivered, []);
        assert.equal(scene.victim.peer("mallory"), undefined);
      } finally {
        setRejectUnauthorized(before);
      }
    }),
  );
});

describe("25. a second live node with the same id", () => {
  const FIRST = { node_id: "twin", incarnation: "00000000000000aa" };
  const SECOND = { node_id: "twin", incarnation: "00000000000000bb" };

  for (const strict of [false, true]) {
    it(
      `25. is turned away, the first goes on (${strict ? "TLS" : "plain text"})`,
      inScene({ strict }, async (scene) => {
        const target = strict ? { tls: await issued(scene, "twin") } : {};
        const first = await scene.insider(FIRST, target);
        let answer: Record<string, unknown> = {};
        await scene.refuses({ code: "HandshakeFailed" }, async () => {
          const peer = await scene.attacker(target);
          await peer.write(hello(SECOND), messageV2("secret"));
          answer = await peer.answer();
          return peer;
        });
        assert.equal(answer.code, "DUPLICATE_NODE_ID");
        await first.write(messageV2("still me"));
        await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
        assert.deepEqual(scene.delivered, [{ from: "twin", text: "still me" }]);
      }),
    );
  }

  for (const [name, leave] of [["FIN", "end"], ["RST", "reset"]] as const) {
    it(
      `25. gets in as soon as the first is gone by ${name}`,
      inScene({}, async (scene) => {
        const first = await scene.insider(FIRST);
        first[leave]();
        await scene.when(
          () => scene.victim.peer("twin")?.state !== "active",
          1_000,
          () => "the first is still there",
        );
        const second = await scene.insider(SECOND);
        await second.write(messageV2("now me"));
        await scene.when(() => scene.delivered.length === 1, 1_000, () => "nothing delivered");
      }),
    );
  }

  it(
    "25. can't evict an endpoint, whose reconnection it doesn't even cause",
    inScene({}, async (scene) => {
      const attempt = scene.join("canary");
      await assert.rejects(attempt, { code: "HandshakeFailed", rejectCode: "DUPLICATE_NODE_ID" });
      await scene.beats();
    }),
  );

  it(
    "25. with the victim's own id is turned away",
    inScene({}, async (scene) => {
      let answer: Record<string, unknown> = {};
      await scene.refuses({ code: "HandshakeFailed" }, async () => {
        const peer = await scene.attacker();
        await peer.write(hello({ node_id: "victim" }));
        answer = await peer.answer();
        return peer;
      });
      assert.equal(answer.code, "DUPLICATE_NODE_ID");
    }),
  );
});
