/** Links inside one process. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Endpoint } from "../../mod.ts";
import { memoryTransport } from "../../src/transport/memory.ts";
import { ContractListener, dialOptions, linkContract } from "./link_contract.ts";
import { countedBytes, LinkRecorder } from "./link_recorder.ts";

let names = 0;
const newAddress = () => `memory://test${names++}`;

linkContract(
  "memory",
  () => Promise.resolve({ transport: memoryTransport(), listenAddress: newAddress() }),
);

async function memoryPair(): Promise<[LinkRecorder, LinkRecorder, ContractListener]> {
  const transport = memoryTransport();
  const server = await new ContractListener().start(transport, newAddress());
  const dialed = new LinkRecorder(await transport.dial(server.address, dialOptions(undefined)));
  return [dialed, new LinkRecorder(await server.accepted()), server];
}

describe("memory links", () => {
  it("deliver what was written, whatever the writer does with its memory after it has left", async () => {
    const [a, b, server] = await memoryPair();
    const chunk = countedBytes(1_000);
    a.onDrain = () => chunk.fill(0xee);
    a.link.write(chunk);
    await a.until(() => a.told("drain"), "the drain");
    await b.received(1_000);
    assert.equal(chunk[0], 0xee);
    assert.deepEqual(b.bytes, countedBytes(1_000));
    await server.listener.close();
  });

  it("count bytes as left when the other side gets them, so that writers may change them then", async () => {
    const [a, b, server] = await memoryPair();
    const chunk = countedBytes(400_000);
    b.onChunk = () => {
      // As the driver does with a batch: all before what is still buffered may be used again.
      chunk.fill(0xee, 0, chunk.length - a.link.bufferedBytes);
    };
    a.link.write(chunk);
    await b.received(400_000);
    assert.deepEqual(b.bytes, countedBytes(400_000));
    await server.listener.close();
  });

  it("use the memory again that a receiver gives back, and never what it keeps", async () => {
    const transport = memoryTransport();
    const server = await new ContractListener().start(transport, newAddress());
    const dialed = new LinkRecorder(await transport.dial(server.address, dialOptions(undefined)));
    const accepted = await server.accepted();
    const kept: Uint8Array[] = [];
    let received = 0;
    const all = await new Promise<boolean>((resolve) => {
      accepted.open({
        onData: (chunk) => {
          const keeps = received++ % 2 === 0;
          if (keeps) kept.push(chunk);
          if (received === 100) resolve(true);
          return !keeps;
        },
        onDrain() {},
        onEnd() {},
        onClose() {},
      });
      for (let i = 0; i < 100; i++) dialed.link.write(new Uint8Array(50 + i).fill(i));
    });
    assert.ok(all);
    assert.deepEqual(
      kept,
      Array.from({ length: 50 }, (_, i) => new Uint8Array(50 + 2 * i).fill(2 * i)),
    );
    await server.listener.close();
  });

  it("refuse a dial where nobody listens", async () => {
    const dialing = memoryTransport().dial(newAddress(), dialOptions(undefined));
    await assert.rejects(dialing, { code: "ConnectionFailed", message: /nobody listens there$/ });
  });

  it("tell a reset where bytes were lost, and a plain close where none were", async () => {
    for (const lost of [false, true]) {
      const [a, b, server] = await memoryPair();
      a.link.write(Uint8Array.of(1));
      if (!lost) await a.until(() => a.link.bufferedBytes === 0 && a.told("drain"), "the drain");
      a.link.close();
      assert.equal((await b.closed())?.code, lost ? "ConnectionClosed" : undefined);
      await server.listener.close();
    }
  });
});

describe("memory links that are closed while the other side does not read", () => {
  it("deliver what has left, and close then", async () => {
    const [a, b, server] = await memoryPair();
    b.link.pause();
    a.link.write(countedBytes(10_000));
    await a.until(() => a.told("drain"), "the drain");
    a.link.close();
    await a.closed();
    assert.deepEqual(b.events, []);
    b.link.resume();
    assert.equal(await b.closed(), undefined);
    assert.deepEqual(b.bytes, countedBytes(10_000));
    await server.listener.close();
  });
});

describe("memory:// addresses", () => {
  it("connect endpoints of one process, without any transport given", async () => {
    const [first, second] = [newAddress(), newAddress()];
    const a = new Endpoint({ nodeId: "a", listen: first, security: "development" });
    const b = new Endpoint({ nodeId: "b", listen: second, security: "development" });
    await Promise.all([a.start(), b.start()]);
    assert.deepEqual(a.addresses, [first]);
    await a.connect({ nodeId: "b", address: second });
    const payload = countedBytes(3_000_000);
    const sending = a.send("b", payload);
    const message = await b.receive();
    await sending;
    assert.equal(message.payload.length, payload.length);
    assert.deepEqual(message.payload, payload);
    await Promise.all([a.close(), b.close()]);
  });

  it("are refused by the modes that demand encryption", () => {
    assert.throws(
      () => new Endpoint({ nodeId: "a", listen: newAddress(), security: "strict" }),
      { code: "TlsRequired" },
    );
  });
});
