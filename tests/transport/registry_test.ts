import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { TransportRegistry } from "../../src/transport/registry.ts";
import { tcpTransport } from "../../src/transport/tcp.ts";

const tcp = tcpTransport(detectRuntime());

describe("TransportRegistry", () => {
  it("finds a transport by its scheme, the later one of two", () => {
    const registry = new TransportRegistry();
    registry.register(tcp);
    assert.equal(registry.get("tcp"), tcp);
    const other = { ...tcp };
    registry.register(other);
    assert.equal(registry.get("tcp"), other);
    registry.register({ ...tcp, scheme: "memory" });
    assert.deepEqual(registry.schemes(), ["tcp", "memory"]);
  });

  it("names what is available when a scheme is not", () => {
    const registry = new TransportRegistry();
    assert.throws(() => registry.get("quic"), {
      code: "UnsupportedProtocol",
      message: 'Cannot use the scheme "quic": available are: none',
    });
    registry.register(tcp);
    registry.register({ ...tcp, scheme: "memory" });
    assert.throws(() => registry.get("constructor"), {
      message: 'Cannot use the scheme "constructor": available are: tcp, memory',
    });
  });
});
