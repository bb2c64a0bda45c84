import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint, type Link, type LinkEvents, type LinkInfo, type Transport } from "../../mod.ts";
import { bytes, inCluster, text } from "../support/cluster.ts";

/** A link that takes everything at once and therefore never drains. */
class PromptLink implements Link {
  readonly bufferedBytes = 0;
  readonly info: LinkInfo;
  peer!: PromptLink;
  #events: LinkEvents | undefined;
  #early: Uint8Array[] = [];

  constructor(info: LinkInfo) {
    this.info = info;
  }

  open(events: LinkEvents): void {
    this.#events = events;
    queueMicrotask(() => this.#early.splice(0).forEach((chunk) => events.onData(chunk)));
  }

  write(chunk: Uint8Array): boolean {
    const copy = chunk.slice();
    queueMicrotask(() => this.peer.#take(copy));
    return true;
  }

  pause(): void {}
  resume(): void {}

  end(): void {
    queueMicrotask(() => this.peer.#events?.onEnd());
  }

  close(): void {
    for (const link of [this, this.peer]) {
      const events = link.#events;
      link.#events = undefined;
      queueMicrotask(() => events?.onClose());
    }
  }

  #take(chunk: Uint8Array): void {
    if (this.#events === undefined) this.#early.push(chunk);
    else this.#events.onData(chunk);
  }
}

function promptTransport(): Transport {
  let accept: (link: Link) => void = () => {};
  const info: LinkInfo = {
    protocol: "prompt",
    localAddress: "prompt://a:1",
    remoteAddress: "prompt://b:1",
    remoteHost: "b",
    encrypted: false,
    peerCertificate: undefined,
  };
  return {
    scheme: "prompt",
    capabilities: {
      reliable: true,
      ordered: true,
      multiplexed: false,
      encrypted: false,
      peerAuthenticated: false,
      maxMessageSize: undefined,
    },
    dial: () => {
      const [near, far] = [new PromptLink(info), new PromptLink(info)];
      near.peer = far;
      far.peer = near;
      accept(far);
      return Promise.resolve(near);
    },
    listen: (address, options) => {
      accept = (link) => options.onLink(link);
      return Promise.resolve({ address, close: () => Promise.resolve() });
    },
  };
}

describe("flush", () => {
  it("resolves over a link that takes everything at once, and so does close", async () => {
    const transports = [promptTransport()];
    const options = { security: "legacy", transports, compression: { enabled: false } } as const;
    const b = new Endpoint({ ...options, nodeId: "b", listen: "prompt://b:1" });
    const a = new Endpoint({ ...options, nodeId: "a" });
    await b.start();
    await a.start();
    await a.connect({ nodeId: "b", address: "prompt://b:1" });
    let received = 0;
    b.onMessage(() => {
      received++;
    });
    const large = new Uint8Array(2 ** 20);
    // More than one turn's share, so that a part waits in the queue for a timer.
    for (let i = 0; i < 9; i++) assert.equal(a.trySend("b", large), true);
    for (let i = 0; i < 10; i++) assert.equal(a.trySend("b", bytes("small")), true);
    await a.flush("b");
    assert.equal(a.peer("b")?.pendingMessages, 0);
    await a.close();
    await b.close();
    assert.equal(received, 19);
  });

  it(
    "waits for a peer that is away, and rejects when it is given up",
    inCluster(async (cluster) => {
      const a = await cluster.start("a", { reconnect: { maxAttempts: 2 } });
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      await cluster.pooled(a, b, 2);
      await cluster.environment.run(a.flush("b"));
      await cluster.environment.run(b.close({ drainMs: 0 }));
      await a.send("b", bytes("waits"));
      const lost: string[] = [];
      a.addEventListener("undelivered", ({ detail }) => lost.push(text(detail.payload)));
      await assert.rejects(cluster.environment.run(a.flush("b")), { name: "TransportError" });
      assert.deepEqual(lost, ["waits"]);
    }),
  );

  it(
    "rethrows the reason of its signal",
    inCluster(async (cluster) => {
      const a = await cluster.start("a");
      const b = await cluster.start("b");
      await cluster.connect(a, "b");
      await cluster.environment.run(b.close({ drainMs: 0 }));
      await a.send("b", bytes("waits"));
      const abort = new AbortController();
      const reason = new Error("enough");
      const flushing = a.flush("b", { signal: abort.signal });
      abort.abort(reason);
      await assert.rejects(flushing, (error) => error === reason);
    }),
  );
});
