/** Endpoints that prove who they are with Ed25519 keys, where no certificate does. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  ConfigError,
  type Endpoint,
  type EndpointConfig,
  HandshakeError,
  type PeerUpDetail,
  type RejectCode,
  TransportError,
} from "../../mod.ts";
import { bytes, type Cluster, inbox, inCluster, text } from "../support/cluster.ts";
import { type Change, changing, indexOf, type Keys, newKeys } from "./on_the_line.ts";

const [A, B, STRANGER] = [newKeys(), newKeys(), newKeys()];

/** The options of a node: its key, and the keys that it trusts. */
function proving(own: Keys | undefined, trusted: Record<string, string | string[]>) {
  const privateKey = own === undefined ? {} : { privateKey: own.privateKey };
  return { identity: { ...privateKey, trustedKeys: trusted } };
}

const asA = () => proving(A, { b: B.publicKey });
const asB = () => proving(B, { a: A.publicKey });

interface Refused {
  /** What `connect` rejects with. */
  readonly dialer: { code: string; rejectCode?: RejectCode };
  /** The counter of the listener that goes up by one; undefined where it is not at fault. */
  readonly listener: string | undefined;
}

/** "a" dials "b": that fails as it should, on both sides, and nothing is left of it. */
async function refused(cluster: Cluster, a: Endpoint, b: Endpoint, as: Refused): Promise<void> {
  const ups: PeerUpDetail[] = [];
  for (const endpoint of [a, b]) {
    endpoint.addEventListener("peerup", ({ detail }) => ups.push(detail));
  }
  await assert.rejects(cluster.connect(a, "b"), (error) => {
    assert.ok(error instanceof TransportError, String(error));
    assert.deepEqual([error.code, error.peer], [as.dialer.code, "b"]);
    if (as.dialer.rejectCode !== undefined) {
      assert.ok(error instanceof HandshakeError);
      assert.equal(error.rejectCode, as.dialer.rejectCode);
    }
    for (const { privateKey } of [A, B, STRANGER]) {
      assert.ok(!error.message.includes(privateKey.split("\n")[1]!));
    }
    return true;
  });
  await cluster.environment.advance(100);
  if (as.listener !== undefined) assert.deepEqual(b.stats().errors, { [as.listener]: 1 });
  assert.deepEqual([a.peers(), b.peers(), ups], [[], [], []]);
}

async function started(
  cluster: Cluster,
  a: Partial<EndpointConfig>,
  b: Partial<EndpointConfig>,
): Promise<[Endpoint, Endpoint]> {
  return [
    await cluster.start("a", { poolSize: 1, ...a }),
    await cluster.start("b", {
      poolSize: 1,
      ...b,
    }),
  ];
}

/** The two talk. */
async function talk(cluster: Cluster, a: Endpoint, b: Endpoint): Promise<void> {
  await cluster.environment.run(a.send("b", bytes("ahoy"), { acknowledged: true }));
  await cluster.environment.run(b.send("a", bytes("aye"), { acknowledged: true }));
  assert.deepEqual([inbox(b), inbox(a)], [["ahoy"], ["aye"]]);
}

describe("two nodes with the keys that the other one trusts", () => {
  for (const poolSize of [1, 2]) {
    it(
      `connect and know each other's key, with ${poolSize} connections`,
      inCluster(async (cluster) => {
        const [a, b] = await started(cluster, { ...asA(), poolSize }, { ...asB(), poolSize });
        await cluster.connect(a, "b");
        await cluster.pooled(a, b, poolSize);
        assert.equal(a.peer("b")!.publicKey, B.publicKey);
        assert.equal(b.peer("a")!.publicKey, A.publicKey);
        assert.equal(a.peer("b")!.version, 3);
        await talk(cluster, a, b);
      }),
    );
  }

  it(
    "do so whoever dials, again after a cut, and after a restart",
    inCluster(async (cluster) => {
      const { environment, network } = cluster;
      const [a, b] = await started(cluster, asA(), asB());
      await environment.run(b.connect({ nodeId: "a", address: cluster.address("a") }));
      await cluster.pooled(a, b, 1);
      network.reset(cluster.address("a"));
      await environment.until(() => b.stats().reconnections === 1);
      await cluster.pooled(a, b, 1);
      assert.equal(a.peer("b")!.publicKey, B.publicKey);
      await environment.run(a.close({ drainMs: 0 }));
      const again = await cluster.start("a", { poolSize: 1, ...asA() });
      await cluster.pooled(again, b, 1);
      assert.equal(b.peer("a")!.publicKey, A.publicKey);
      await talk(cluster, again, b);
    }),
  );

  it(
    "may have two keys each, while they are changed",
    inCluster(async (cluster) => {
      const trusting = proving(B, { a: [STRANGER.publicKey, A.publicKey] });
      const [a, b] = await started(cluster, asA(), trusting);
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 1);
      assert.equal(b.peer("a")!.publicKey, A.publicKey);
    }),
  );

  it(
    "need not both ask: who trusts no keys demands no proof",
    inCluster(async (cluster) => {
      const [a, b] = await started(
        cluster,
        proving(A, {}),
        proving(undefined, asB().identity.trustedKeys),
      );
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 1);
      assert.equal(b.peer("a")!.publicKey, A.publicKey);
      assert.equal(a.peer("b")!.publicKey, undefined);
      await talk(cluster, a, b);
    }),
  );
});

describe("a dialer that does not prove what the listener demands", () => {
  it(
    "is refused without a key",
    inCluster(async (cluster) => {
      const [a, b] = await started(cluster, {}, asB());
      await refused(cluster, a, b, {
        dialer: { code: "HandshakeFailed", rejectCode: "IDENTITY_REQUIRED" },
        listener: "HandshakeFailed",
      });
    }),
  );

  it(
    "is refused with a key that is not its own",
    inCluster(async (cluster) => {
      const [a, b] = await started(cluster, proving(STRANGER, { b: B.publicKey }), asB());
      await refused(cluster, a, b, {
        dialer: { code: "HandshakeFailed", rejectCode: "AUTH_FAILED" },
        listener: "IdentityMismatch",
      });
    }),
  );

  it(
    "is refused as a stranger, whose node id is not listed",
    inCluster(async (cluster) => {
      const [a, b] = await started(cluster, asA(), proving(B, { c: A.publicKey }));
      await refused(cluster, a, b, {
        dialer: { code: "HandshakeFailed", rejectCode: "AUTH_FAILED" },
        listener: "IdentityMismatch",
      });
    }),
  );

  for (const version of [1, 2]) {
    it(
      `is refused in version ${version}, which has no proofs`,
      inCluster(async (cluster) => {
        const [a, b] = await started(
          cluster,
          { ...proving(A, {}), maxProtocolVersion: version },
          asB(),
        );
        await refused(cluster, a, b, {
          dialer: { code: "HandshakeFailed", rejectCode: "IDENTITY_REQUIRED" },
          listener: "HandshakeFailed",
        });
      }),
    );
  }
});

describe("a listener that does not prove what the dialer demands", () => {
  it(
    "is not talked to without a key",
    inCluster(async (cluster) => {
      const [a, b] = await started(cluster, asA(), {});
      await refused(cluster, a, b, {
        dialer: { code: "HandshakeFailed", rejectCode: "IDENTITY_REQUIRED" },
        listener: undefined,
      });
    }),
  );

  it(
    "is not talked to with a key that is not its own",
    inCluster(async (cluster) => {
      const [a, b] = await started(cluster, asA(), proving(STRANGER, { a: A.publicKey }));
      await refused(cluster, a, b, { dialer: { code: "IdentityMismatch" }, listener: undefined });
    }),
  );

  it(
    "is not talked to in version 2",
    inCluster(async (cluster) => {
      const older = { ...proving(B, {}), maxProtocolVersion: 2 };
      const [a, b] = await started(cluster, asA(), older);
      await assert.rejects(cluster.connect(a, "b"), {
        code: "HandshakeFailed",
        rejectCode: "IDENTITY_REQUIRED",
      });
      await cluster.environment.advance(100);
      // In version 2 a listener has no third frame to wait for: it saw a peer come and go.
      assert.deepEqual([a.peers(), b.stats().connectionCount], [[], 0]);
    }),
  );
});

describe("somebody on the line who changes the handshake", () => {
  /** Changes one digit in a signature or in a key. */
  const changed = (member: string): Change => (body) => {
    const start = indexOf(body, bytes(`"${member}":"`));
    if (start < 0) return body;
    const at = start + member.length + 4 + 10;
    body[at] = body[at] === 65 ? 66 : 65;
    return body;
  };
  const through = ({ network }: Cluster, nodeId: string, change: Change) => ({
    transports: [changing(network.transport(nodeId), change)],
  });

  it(
    "makes the dialer's proof wrong",
    inCluster(async (cluster) => {
      const line = through(cluster, "a", changed("signature"));
      const [a, b] = await started(cluster, { ...asA(), ...line }, asB());
      let ups = 0;
      b.addEventListener("peerup", () => ups++);
      const told: unknown[] = [];
      a.addEventListener("warning", ({ detail: { error } }) => {
        told.push(error instanceof HandshakeError ? error.rejectCode : error?.code);
      });
      // The dialer has the welcome by then: it may be connected before it hears of it.
      await cluster.connect(a, "b").catch(() => {});
      await cluster.environment.until(() => (b.stats().errors.IdentityMismatch ?? 0) > 0);
      await cluster.environment.advance(50);
      assert.ok(told.length > 0 && told.every((code) => code === "AUTH_FAILED"), `${told}`);
      assert.deepEqual([ups, b.peers()], [0, []]);
    }),
  );

  it(
    "makes the listener's proof wrong",
    inCluster(async (cluster) => {
      const line = through(cluster, "b", changed("signature"));
      const [a, b] = await started(cluster, asA(), { ...asB(), ...line });
      await refused(cluster, a, b, { dialer: { code: "IdentityMismatch" }, listener: undefined });
    }),
  );

  for (const [member, part] of [["capabilities", "zstd"], ["nonce", "="]] as const) {
    it(
      `can't change the ${member} that the two agree on`,
      inCluster(async (cluster) => {
        const line = through(cluster, "a", (body) => {
          if (indexOf(body, bytes('"hello"')) < 0) return body;
          const words = text(body);
          const change = member === "nonce"
            ? words.replace(/("nonce":")(.)/, (_, key, first) => key + (first === "A" ? "B" : "A"))
            : words.replace(part, "none");
          assert.notEqual(change, words);
          return bytes(change);
        });
        const [a, b] = await started(cluster, { ...asA(), ...line }, asB());
        await refused(cluster, a, b, {
          dialer: { code: "IdentityMismatch" },
          listener: undefined,
        });
      }),
    );
  }
});

describe("a private key that is none", () => {
  it("keeps the endpoint from starting, and is not quoted", async () => {
    const body = btoa("this is a secret and no key at all..................");
    const pem = `-----BEGIN PRIVATE KEY-----\n${body}\n-----END PRIVATE KEY-----\n`;
    const cluster = inCluster(async (cluster) => {
      await assert.rejects(
        cluster.start("a", { identity: { privateKey: pem, trustedKeys: {} } }),
        (error) => {
          assert.ok(error instanceof ConfigError, String(error));
          assert.match(error.message, /identity\.privateKey/);
          assert.ok(!error.message.includes(body.slice(0, 8)));
          return true;
        },
      );
    });
    await cluster();
  });
});
