/**
 * A transport of one's own. It connects endpoints of one process by pairs of Web Streams; the same
 * few lines make one of whatever gives a `readable` and a `writable`: the standard streams of a child
 * process, a worker's port, WebTransport. Endpoints use it without knowing what it is. That it keeps
 * what a transport promises is shown by the contract that `@hawser/hawser/testing` exports, which
 * tests/testing/own_transport_test.ts runs.
 *
 * Run it with `deno run -A examples/own_transport.ts`, or with `bun` or `node`. In a program of your
 * own the import is `@hawser/hawser`.
 *
 * @module
 */

import {
  Endpoint,
  type ListenOptions,
  streamLink,
  type Transport,
  TransportError,
} from "../mod.ts";

/** The transport of `pipe://name:port` addresses. */
export function pipeTransport(): Transport {
  const listeners = new Map<string, ListenOptions>();
  const close = (address: string) => Promise.resolve(void listeners.delete(address));
  return {
    scheme: "pipe",
    // What it can't do, strict mode refuses by itself: here nothing is encrypted.
    capabilities: {
      reliable: true,
      ordered: true,
      multiplexed: false,
      encrypted: false,
      peerAuthenticated: false,
      maxMessageSize: undefined,
    },
    listen: (address, options) => {
      if (listeners.has(address)) return Promise.reject(failed(`listen on ${address}`, "in use"));
      listeners.set(address, options);
      // Closing stops the accepting; links that were accepted live on.
      return Promise.resolve({ address, close: () => close(address) });
    },
    dial: async (address, { signal }) => {
      await new Promise((resolve) => setTimeout(resolve, 0));
      signal.throwIfAborted();
      const listener = listeners.get(address);
      // Each accepted link is counted, and may be refused, before any work is spent on it.
      const release = listener?.admit("dialer");
      if (!listener || !release) throw failed(`connect to ${address}`, "refused");
      const [there, back] = [newPipe(), newPipe()];
      const ours = "pipe://dialer:1";
      const far = { readable: there.readable, writable: back.writable };
      listener.onLink(streamLink(far, linkInfo(address, ours), release));
      const near = { readable: back.readable, writable: there.writable };
      return streamLink(near, linkInfo(ours, address));
    },
  };
}

/** Each direction takes 256 KiB for a reader that is not there yet. */
function newPipe(): TransformStream<Uint8Array, Uint8Array> {
  const room = { highWaterMark: 262_144, size: (chunk: Uint8Array) => chunk.length };
  return new TransformStream({}, room, room);
}

function linkInfo(localAddress: string, remoteAddress: string) {
  const remoteHost = new URL(remoteAddress).hostname;
  const plain = { protocol: "pipe", encrypted: false, peerCertificate: undefined };
  return { ...plain, localAddress, remoteAddress, remoteHost };
}

function failed(what: string, why: string): TransportError {
  const cause = new Error(why);
  return new TransportError("ConnectionFailed", `Cannot ${what}: ${why}`, { cause });
}

if (import.meta.main) {
  const transports = [pipeTransport()];
  const at = { security: "development", transports } as const;
  await using harbour = new Endpoint({ nodeId: "harbour", listen: "pipe://harbour:1", ...at });
  await using ship = new Endpoint({ nodeId: "ship", ...at });
  await harbour.start();
  await ship.start();
  await ship.connect({ nodeId: "harbour", address: "pipe://harbour:1" });
  await ship.send("harbour", new TextEncoder().encode("ahoy"));
  const { from, payload } = await harbour.receive();
  console.log(`harbour heard "${new TextDecoder().decode(payload)}" from ${from}`);
  console.log(`over ${harbour.peer("ship")?.connections[0]?.protocol}`);
}
