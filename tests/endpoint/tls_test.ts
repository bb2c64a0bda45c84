/** Identity over real sockets: who gets in, who does not, and what each side is told. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint, type EndpointConfig, TransportError } from "../../mod.ts";
import { TestCa } from "../support/certs.ts";
import { bytes, text } from "../support/cluster.ts";
import { strict } from "./proved_pair.ts";

type Tls = NonNullable<EndpointConfig["tls"]>;

/** The same with a certificate that may be anybody's: who verifies names checks its own, too. */
function lenient(config: EndpointConfig): EndpointConfig {
  return { ...config, security: "permissive", tls: { ...config.tls, nodeIdVerification: "None" } };
}

interface Pair {
  readonly listener: Endpoint;
  readonly dialer: Endpoint;
  readonly warnings: TransportError[];
  dial(nodeId?: string, address?: string): Promise<void>;
}

async function withPair(
  listens: EndpointConfig,
  dials: EndpointConfig,
  test: (pair: Pair) => Promise<void>,
): Promise<void> {
  const listener = new Endpoint({ listen: "tcp://127.0.0.1:0", ...listens });
  const dialer = new Endpoint(dials);
  const warnings: TransportError[] = [];
  listener.addEventListener("warning", ({ detail }) => {
    if (detail.error !== undefined) warnings.push(detail.error);
  });
  try {
    await listener.start();
    await dialer.start();
    const dial = (nodeId = listener.nodeId, address = listener.addresses[0]!) =>
      dialer.connect({ nodeId, address });
    await test({ listener, dialer, warnings, dial });
  } finally {
    await dialer.close({ drainMs: 0 });
    await listener.close({ drainMs: 0 });
  }
}

async function talk({ listener, dialer }: Pair): Promise<void> {
  await dialer.send(listener.nodeId, bytes("there"));
  assert.equal(text((await listener.receive()).payload), "there");
  await listener.send(dialer.nodeId, bytes("back"));
  assert.equal(text((await dialer.receive()).payload), "back");
}

/** Resolves with the listener's next warning. */
function nextWarning(listener: Endpoint): Promise<TransportError> {
  return new Promise((resolve) =>
    listener.addEventListener("warning", ({ detail }) => {
      if (detail.error !== undefined) resolve(detail.error);
    })
  );
}

describe("strict mode", () => {
  for (const nodeIdVerification of ["CommonName", "SubjectAltName"] as const) {
    it(`verifies both sides by ${nodeIdVerification} and says so in peer() and peerup`, async () => {
      const ca = await TestCa.create();
      const listens = await strict(ca, "node1", { nodeIdVerification });
      const dials = await strict(ca, "node2", { nodeIdVerification });
      await withPair(listens, dials, async (pair) => {
        const seen: (string | undefined)[] = [];
        for (const endpoint of [pair.listener, pair.dialer]) {
          endpoint.addEventListener("peerup", ({ detail }) => {
            seen.push(`${detail.identity?.nodeId} by ${detail.identity?.verifiedBy}`);
          });
        }
        await pair.dial();
        await talk(pair);
        assert.deepEqual(seen.toSorted(), [
          `node1 by ${nodeIdVerification}`,
          `node2 by ${nodeIdVerification}`,
        ]);
        assert.equal(pair.dialer.peer("node1")?.identity?.nodeId, "node1");
        assert.equal(pair.listener.peer("node2")?.identity?.nodeId, "node2");
        assert.ok(pair.dialer.peer("node1")!.connections.every(({ encrypted }) => encrypted));
      });
    });
  }

  for (const host of ["127.0.0.1", "[::1]", "localhost"]) {
    it(`listens on and dials ${host}, whatever the certificate says of hosts`, async () => {
      const ca = await TestCa.create();
      const bare = async (nodeId: string) => ({
        ...await strict(
          ca,
          nodeId,
          await ca.issue(nodeId, { dnsNames: [nodeId], ipAddresses: [] }),
        ),
      });
      const listens = { ...await bare("node1"), listen: `tcp://${host}:0` };
      await withPair(listens, await bare("node2"), async (pair) => {
        const port = pair.listener.addresses[0]!.split(":").at(-1);
        await pair.dial("node1", `tcp://${host}:${port}`);
        await talk(pair);
      });
    });
  }

  it("refuses a listener whose certificate is another node's, before a byte is sent", async () => {
    const ca = await TestCa.create();
    const listens = lenient(await strict(ca, "node1", await ca.issue("node3")));
    await withPair(listens, await strict(ca, "node2"), async ({ dial, listener, dialer }) => {
      const error = await dial().catch((e) => e);
      assert.ok(error instanceof TransportError);
      assert.equal(error.code, "IdentityMismatch");
      assert.equal(error.peer, "node1");
      assert.equal(dialer.peer("node1"), undefined);
      assert.equal(listener.stats().bytesReceived, 0);
    });
  });

  it("refuses a dialer that says it is another node, with a reason on both sides", async () => {
    const ca = await TestCa.create();
    const dials = lenient(await strict(ca, "node2", await ca.issue("node3")));
    await withPair(await strict(ca, "node1"), dials, async ({ dial, listener }) => {
      const warned = nextWarning(listener);
      await assert.rejects(dial(), { code: "HandshakeFailed", rejectCode: "AUTH_FAILED" });
      assert.equal((await warned).code, "IdentityMismatch");
      assert.equal(listener.stats().errors.IdentityMismatch, 1);
      assert.deepEqual(listener.peers(), []);
    });
  });

  it("refuses the listener at the address when it is not the node that was meant", async () => {
    const ca = await TestCa.create();
    await withPair(await strict(ca, "node1"), await strict(ca, "node2"), async ({ dial }) => {
      await assert.rejects(dial("node9"), { code: "IdentityMismatch", peer: "node9" });
    });
  });

  for (const nodeIdVerification of ["CommonName", "SubjectAltName"] as const) {
    it(`does not start with another node's certificate, by ${nodeIdVerification}`, async () => {
      const ca = await TestCa.create();
      const config = await strict(ca, "node1", await ca.issue("node3"));
      const endpoint = new Endpoint({ ...config, tls: { ...config.tls, nodeIdVerification } });
      const error = await endpoint.start().catch((e) => e);
      assert.ok(error instanceof TransportError);
      assert.equal(error.code, "IdentityMismatch");
      assert.match(error.message, /^Cannot start as "node1": its certificate /);
      assert.match(error.recovery, /its own node id/);
      await endpoint.close();
    });
  }

  it("starts with a chain that begins with its own certificate", async () => {
    const ca = await TestCa.create();
    const { cert, key } = await ca.issue("node1");
    const endpoint = new Endpoint(await strict(ca, "node1", { cert: cert + ca.ca, key }));
    await endpoint.start();
    await endpoint.close();
  });

  const past = new Date(Date.now() - 86_400_000);
  const future = new Date(Date.now() + 86_400_000);
  const bad: [string, (ca: TestCa) => Promise<Partial<Tls>>, ("listener" | "dialer")[]][] = [
    ["from another authority", async () => {
      const rogue = await TestCa.create("rogue");
      return await rogue.issue("evil");
    }, ["listener", "dialer"]],
    ["that has expired", (ca) => ca.issue("evil", { notBefore: new Date(0), notAfter: past }), [
      "listener",
      "dialer",
    ]],
    ["that is not valid yet", (ca) => ca.issue("evil", { notBefore: future }), [
      "listener",
      "dialer",
    ]],
    ["for servers only", (ca) => ca.issue("evil", { usages: ["server"] }), ["dialer"]],
    ["for clients only", (ca) => ca.issue("evil", { usages: ["client"] }), ["listener"]],
    ["with two common names", (ca) => ca.issue("evil", { commonNames: ["evil", "node1"] }), [
      "listener",
      "dialer",
    ]],
  ];
  for (const [what, issue, sides] of bad) {
    for (const side of sides) {
      it(`refuses a ${side}'s certificate ${what}`, async () => {
        const ca = await TestCa.create();
        const own = await strict(ca, "evil", await issue(ca));
        const evil = what === "with two common names" ? lenient(own) : own;
        const good = await strict(ca, "good");
        const [listens, dials] = side === "listener" ? [evil, good] : [good, evil];
        await withPair(listens, dials, async ({ dial, listener, dialer }) => {
          const warned = side === "dialer" ? nextWarning(listener) : undefined;
          const error = await dial().catch((e) => e);
          assert.ok(error instanceof TransportError, String(error));
          assert.ok(
            ["HandshakeFailed", "IdentityMismatch"].includes(error.code),
            `${error.code}: ${error.message}`,
          );
          if (warned !== undefined) {
            const { code, message } = await warned;
            assert.ok(["HandshakeFailed", "IdentityMismatch"].includes(code), message);
          }
          assert.deepEqual([listener.peers(), dialer.peers()], [[], []]);
          assert.equal(listener.stats().messagesReceived, 0);
        });
      });
    }
  }

  it("refuses a dialer without a certificate, with a useful error on both sides", async () => {
    const ca = await TestCa.create();
    const dials: EndpointConfig = {
      nodeId: "bare",
      security: "permissive",
      tls: { ca: ca.ca, nodeIdVerification: "CommonName" },
    };
    await withPair(await strict(ca, "node1"), dials, async ({ dial, listener }) => {
      const warned = nextWarning(listener);
      const error = await dial().catch((e) => e);
      assert.ok(
        ["ClientCertificateRequired", "HandshakeFailed"].includes(error.code),
        error.message,
      );
      assert.match(error.message, /certificate/i);
      assert.equal((await warned).code, "ClientCertificateRequired");
    });
  });

  it("does not talk to a listener in plain text, nor to a dialer in plain text", async () => {
    const ca = await TestCa.create();
    const plain: EndpointConfig = { nodeId: "plain", security: "legacy", connectTimeoutMs: 500 };
    await withPair(plain, await strict(ca, "node2"), async ({ dial }) => {
      await assert.rejects(dial(), TransportError);
    });
    await withPair(await strict(ca, "node1"), plain, async ({ dial, listener }) => {
      await assert.rejects(dial(), TransportError);
      assert.deepEqual(listener.peers(), []);
    });
  });

  it("will not start without what it needs, and says what", () => {
    assert.throws(() => new Endpoint({ nodeId: "a" }), { code: "TlsRequired" });
    assert.throws(() => new Endpoint({ nodeId: "a", nodeld: 1 } as unknown as EndpointConfig), {
      code: "Config",
    });
  });

  it("will not use a transport that can't encrypt", async () => {
    const ca = await TestCa.create();
    const pipe = {
      scheme: "pipe",
      capabilities: {
        reliable: true,
        ordered: true,
        multiplexed: false,
        encrypted: false,
        peerAuthenticated: false,
        maxMessageSize: undefined,
      },
      dial: () => Promise.reject(new Error("not reached")),
      listen: () => Promise.reject(new Error("not reached")),
    };
    const options = { ...await strict(ca, "a"), listen: "pipe://x:1", transports: [pipe] };
    const endpoint = new Endpoint(options);
    await assert.rejects(endpoint.start(), { code: "TlsRequired" });
    await endpoint.close();
  });
});

describe("permissive mode", () => {
  it("verifies the chain and the host name where no node id is to be verified", async () => {
    const ca = await TestCa.create();
    const listens: EndpointConfig = {
      nodeId: "node1",
      security: "permissive",
      tls: { ...await ca.issue("node1"), ca: ca.ca },
    };
    const dials: EndpointConfig = { nodeId: "node2", security: "permissive", tls: { ca: ca.ca } };
    await withPair(listens, dials, async (pair) => {
      await pair.dial();
      await talk(pair);
      assert.equal(pair.dialer.peer("node1")?.identity, undefined);
      assert.ok(pair.listener.peer("node2")!.connections.every(({ encrypted }) => encrypted));
    });
    const elsewhere = {
      ...listens,
      tls: { ...await ca.issue("node1", { dnsNames: ["node1"], ipAddresses: [] }), ca: ca.ca },
    };
    await withPair(elsewhere, dials, async ({ dial }) => {
      await assert.rejects(dial(), { code: "HandshakeFailed" });
    });
  });

  it("verifies the listener's node id where that is asked for", async () => {
    const ca = await TestCa.create();
    const listens: EndpointConfig = {
      nodeId: "node1",
      security: "permissive",
      tls: { ...await ca.issue("node1"), ca: ca.ca },
    };
    const dials: EndpointConfig = {
      nodeId: "node2",
      security: "permissive",
      tls: { ca: ca.ca, nodeIdVerification: "SubjectAltName" },
    };
    await withPair(listens, dials, async (pair) => {
      await pair.dial();
      await talk(pair);
      assert.equal(pair.dialer.peer("node1")?.identity?.verifiedBy, "SubjectAltName");
    });
    const impostor = { ...listens, tls: { ...await ca.issue("node7"), ca: ca.ca } };
    await withPair(impostor, dials, async ({ dial }) => {
      await assert.rejects(dial(), { code: "IdentityMismatch" });
    });
  });

  it("refuses a listener of another authority", async () => {
    const ca = await TestCa.create();
    const rogue = await TestCa.create("rogue");
    const listens: EndpointConfig = {
      nodeId: "node1",
      security: "permissive",
      tls: { ...await rogue.issue("node1"), ca: ca.ca },
    };
    const dials: EndpointConfig = { nodeId: "node2", security: "permissive", tls: { ca: ca.ca } };
    await withPair(listens, dials, async ({ dial }) => {
      await assert.rejects(dial(), { code: "HandshakeFailed" });
    });
  });
});

describe("TLS on one side only", () => {
  const plain: EndpointConfig = { nodeId: "plain", security: "development" };

  it("is named to a dialer without it", async () => {
    const ca = await TestCa.create();
    await withPair(await strict(ca, "node1"), plain, async ({ dial }) => {
      const error = await dial().catch((e) => e);
      assert.ok(error instanceof TransportError);
      assert.match(error.message, /speaks TLS|closed the connection before it answered/);
    });
  });

  it("is named by a listener without it", async () => {
    const ca = await TestCa.create();
    await withPair(plain, await strict(ca, "node1"), async ({ dial, listener }) => {
      const warned = nextWarning(listener);
      await assert.rejects(dial(), TransportError);
      const { code, message } = await warned;
      assert.equal(code, "InvalidFrame");
      assert.match(message, /the other side speaks TLS/);
    });
  });
});

describe("development mode", () => {
  it("uses TLS where it is given", async () => {
    const ca = await TestCa.create();
    const options = async (nodeId: string): Promise<EndpointConfig> => ({
      ...await strict(ca, nodeId),
      security: "development",
    });
    await withPair(await options("node1"), await options("node2"), async (pair) => {
      await pair.dial();
      await talk(pair);
      assert.equal(pair.listener.peer("node2")?.identity?.nodeId, "node2");
    });
  });

  it("warns once that nothing is encrypted", async () => {
    const endpoint = new Endpoint({ nodeId: "a", security: "development" });
    const warnings: string[] = [];
    endpoint.addEventListener("warning", ({ detail }) => warnings.push(detail.message));
    await endpoint.start();
    await endpoint.start();
    await endpoint.close();
    assert.equal(warnings.length, 1);
    assert.match(warnings[0]!, /neither encrypted nor verified/);
  });
});
