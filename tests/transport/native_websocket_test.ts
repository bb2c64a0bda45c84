/** Links over WebSockets of a program's own `Bun.serve`, whose limits are the program's. */

import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { type BunSocket, bunWebSocketHandlers, upgradeBun } from "../../src/runtime/bun_upgrade.ts";
import type { LinkInfo } from "../../src/transport/transport.ts";
import { webSocketMount } from "../../src/transport/websocket_mount.ts";
import { webSocketTransports } from "../../src/transport/websocket.ts";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import type { Link } from "../../src/transport/transport.ts";
import { ContractListener, dialOptions } from "./link_contract.ts";
import { LinkRecorder, turn } from "./link_recorder.ts";
import { type BunGlobal, SERVERS } from "./mounted_servers.ts";

const INFO: LinkInfo = {
  protocol: "ws",
  localAddress: "ws://127.0.0.1:1",
  remoteAddress: "ws://127.0.0.1:2",
  remoteHost: "127.0.0.1",
  encrypted: false,
  peerCertificate: undefined,
  proofNeeded: false,
};

/** A WebSocket of Bun's, as far as it can be told from outside: it lets `limit` bytes wait. */
class FakeSocket implements BunSocket {
  data: unknown;
  readonly sent: Uint8Array[] = [];
  readonly closes: (number | undefined)[] = [];
  waiting = 0;
  readonly #limit: number;
  readonly #takes: number;

  constructor(limit: number, takes: number) {
    this.#limit = limit;
    this.#takes = takes;
  }

  send(message: Uint8Array): number {
    if (this.waiting > this.#limit) return 0;
    this.sent.push(message);
    const room = this.waiting > 0 ? 0 : this.#takes;
    this.waiting += Math.max(0, message.length - room);
    return this.waiting > 0 ? -1 : message.length;
  }

  getBufferedAmount(): number {
    return this.waiting;
  }

  close(code?: number): void {
    this.closes.push(code);
  }

  terminate(): void {
    this.closes.push(undefined);
  }
}

/** A link that `Bun.serve` has accepted. */
function accepted(socket: FakeSocket): LinkRecorder {
  let link: Link | undefined;
  const server = {
    upgrade: (_: Request, { data }: { data: unknown }) => {
      socket.data = data;
      return true;
    },
    requestIP: () => null,
  };
  upgradeBun(new Request("http://127.0.0.1/"), server, "hawser.v3", INFO, {
    onLink: (made) => link = made,
    onGone: () => {},
  });
  bunWebSocketHandlers().open(socket);
  return new LinkRecorder(link!);
}

describe("a WebSocket whose server drops what waits too long", () => {
  it("breaks the link with an error", async () => {
    const socket = new FakeSocket(1000, 0);
    const recorder = accepted(socket);
    const { link } = recorder;
    link.write(new Uint8Array(800));
    link.write(new Uint8Array(800));
    assert.deepEqual([link.bufferedBytes, socket.closes], [1600, []]);
    link.write(new Uint8Array(800));
    const error = await recorder.closed();
    assert.deepEqual([error?.code, socket.closes], ["Backpressure", [1001]]);
    assert.match(error!.message, /limit of backpressure is too small/);
    assert.equal(link.bufferedBytes, 2400);
    assert.equal(socket.sent.length, 2);
  });

  it("breaks it where only the end was dropped", async () => {
    const socket = new FakeSocket(1000, 0);
    const recorder = accepted(socket);
    const { link } = recorder;
    link.write(new Uint8Array(2000));
    link.end();
    assert.equal((await recorder.closed())?.code, "Backpressure");
  });

  it("breaks it while it drains", async () => {
    const socket = new FakeSocket(300_000, 0);
    const recorder = accepted(socket);
    const { link } = recorder;
    link.write(new Uint8Array(1_000_000));
    assert.equal(socket.closes.length, 0);
    socket.send = () => 0;
    socket.waiting = 5;
    bunWebSocketHandlers().drain(socket);
    assert.equal((await recorder.closed())?.code, "Backpressure");
  });

  it("takes neither an empty message for a dropped one nor one that came too late", async () => {
    const socket = new FakeSocket(1000, Infinity);
    const recorder = accepted(socket);
    const { link } = recorder;
    link.write(new Uint8Array(10));
    // The connection is gone, which is told later.
    socket.send = () => 0;
    link.write(new Uint8Array(10));
    link.end();
    await turn();
    assert.deepEqual(socket.closes, []);
    bunWebSocketHandlers().close(socket, 1006);
    assert.equal((await recorder.closed())?.code, "ConnectionClosed");
  });
});

describe("Bun.serve with a small backpressureLimit", () => {
  it("loses nothing in silence", {
    skip: "Bun.serve" in SERVERS ? undefined : "no Bun.serve",
  }, async () => {
    const { Bun } = globalThis as unknown as { Bun: BunGlobal };
    const mount = webSocketMount("ws://127.0.0.1:1/");
    const server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: (request, server) => mount.handleBun(request, server),
      websocket: { ...mount.bunWebSocket, backpressureLimit: 1024 },
    });
    const listener = await new ContractListener().start(mount, mount.address);
    const [dialing] = webSocketTransports(detectRuntime());
    const url = `ws://127.0.0.1:${server.port}/`;
    const dialed = new LinkRecorder(await dialing!.dial(url, dialOptions(undefined)), {
      keep: false,
    });
    const sending = new LinkRecorder(await listener.accepted());
    dialed.link.pause();
    for (let i = 0; i < 40; i++) sending.link.write(new Uint8Array(1_000_000));
    assert.equal((await sending.closed())?.code, "Backpressure");
    dialed.link.resume();
    assert.notEqual(await dialed.closed(), undefined);
    assert.ok(dialed.receivedBytes < 40_000_000);
    await listener.listener.close();
    await server.stop();
  });
});
