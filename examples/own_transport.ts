/**
 * A transport of one's own: links over `MessageChannel`, as there are between the workers of a
 * process. Two endpoints use it without knowing what it is; that it keeps all promises of a
 * transport is shown by the contract of `@hawser/hawser/testing`, which the project's tests run on
 * it (tests/testing/own_transport_test.ts).
 *
 * Run it with `deno run -A examples/own_transport.ts`, or with `bun` or `node`. In a program of your
 * own the import is `@hawser/hawser`.
 *
 * @module
 */

import {
  Endpoint,
  type Link,
  type LinkEvents,
  type LinkInfo,
  type ListenOptions,
  type Transport,
  TransportError,
} from "../mod.ts";

/** Bytes that may wait, on either side, before the writer is asked to stop. */
const ROOM = 262_144;
type Note = { data: Uint8Array } | { taken: number } | "end" | "close";

/** The transport of `channel://name:port` addresses; each has listeners of its own. */
export function channelTransport(): Transport {
  const listeners = new Map<string, ListenOptions>();
  let dials = 0;
  const failed = (what: string, why: string) =>
    new TransportError("ConnectionFailed", `Cannot ${what}: ${why}`, { cause: new Error(why) });
  return {
    scheme: "channel",
    capabilities: {
      reliable: true,
      ordered: true,
      multiplexed: false,
      encrypted: false,
      peerAuthenticated: false,
      maxMessageSize: undefined,
    },
    listen: (address, options) => {
      const own = { ...options };
      const close = async () => void (listeners.get(address) === own && listeners.delete(address));
      if (listeners.has(address)) return Promise.reject(failed(`listen on ${address}`, "in use"));
      listeners.set(address, own);
      return Promise.resolve({ address, close });
    },
    dial: async (address, { signal }) => {
      await new Promise((resolve) => setTimeout(resolve, 0));
      signal.throwIfAborted();
      const listener = listeners.get(address);
      const release = listener?.admit("dialer");
      if (!listener || !release) throw failed(`connect to ${address}`, "refused");
      const { port1, port2 } = new MessageChannel();
      const ours = `channel://dialer:${++dials}`;
      listener.onLink(new ChannelLink(port2, address, ours, release));
      return new ChannelLink(port1, ours, address);
    },
  };
}

/** One end of a channel. The other end tells what it has taken: that is all the backpressure. */
class ChannelLink implements Link {
  readonly info: LinkInfo;
  bufferedBytes = 0;
  #port: MessagePort;
  #release: () => void;
  #events: LinkEvents | undefined;
  #inbox: Uint8Array[] = [];
  #unread = 0;
  #untold = 0;
  #paused = false;
  #ended = false;
  #peerEnd: "open" | "arrived" | "told" = "open";
  #closed = false;

  constructor(port: MessagePort, localAddress: string, remoteAddress: string, release = () => {}) {
    const remoteHost = new URL(remoteAddress).hostname;
    const known = { localAddress, remoteAddress, remoteHost, peerCertificate: undefined };
    this.info = { ...known, protocol: "channel", encrypted: false };
    this.#release = release;
    this.#port = port;
    port.onmessage = ({ data }: MessageEvent<Note>) => this.#onNote(data);
  }
  open(events: LinkEvents): void {
    this.#events = events;
    this.resume();
  }
  write(chunk: Uint8Array): boolean {
    this.bufferedBytes += chunk.length;
    if (this.#closed || this.#ended) return false;
    // A copy, which moves to the other side: the writer may use its own again.
    const data = chunk.slice();
    this.#port.postMessage({ data }, [data.buffer]);
    return this.bufferedBytes < ROOM;
  }
  pause(): void {
    this.#paused = true;
  }
  resume(): void {
    this.#paused = false;
    queueMicrotask(() => this.#flow());
  }
  end(): void {
    if (!this.#ended) this.#port.postMessage("end");
    this.#ended = true;
    queueMicrotask(() => this.#flow());
  }
  close(): void {
    if (!this.#closed) this.#port.postMessage("close");
    this.#shut();
  }
  #onNote(note: Note): void {
    if (this.#closed) return;
    if (note === "close") return this.#shut();
    if (note === "end") this.#peerEnd = "arrived";
    else if ("taken" in note) {
      this.bufferedBytes -= note.taken;
      if (this.bufferedBytes === 0) this.#events?.onDrain();
    } else {
      this.#inbox.push(note.data);
      this.#unread += note.data.length;
      this.#untold += note.data.length;
    }
    this.#flow();
  }
  #flow(): void {
    const reads = () => this.#events !== undefined && !this.#paused && !this.#closed;
    for (let chunk; reads() && (chunk = this.#inbox.shift()) !== undefined;) {
      this.#unread -= chunk.length;
      if (chunk.length > 0) this.#events!.onData(chunk);
    }
    if (this.#untold > 0 && this.#unread <= ROOM && !this.#closed) {
      this.#port.postMessage({ taken: this.#untold });
      this.#untold = 0;
    }
    if (reads() && this.#inbox.length === 0 && this.#peerEnd === "arrived") {
      this.#peerEnd = "told";
      this.#events!.onEnd();
    }
    if (this.#ended && this.#peerEnd === "told" && this.bufferedBytes === 0) this.#shut();
  }
  #shut(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#port.close();
    this.#release();
    queueMicrotask(() => this.#events?.onClose());
  }
}

if (import.meta.main) {
  const transports = [channelTransport()];
  const at = { security: "development", transports } as const;
  await using harbour = new Endpoint({ nodeId: "harbour", listen: "channel://harbour:1", ...at });
  await using ship = new Endpoint({ nodeId: "ship", ...at });
  await harbour.start();
  await ship.start();
  await ship.connect({ nodeId: "harbour", address: "channel://harbour:1" });
  await ship.send("harbour", new TextEncoder().encode("ahoy"));
  const { from, payload } = await harbour.receive();
  console.log(`harbour heard "${new TextDecoder().decode(payload)}" from ${from}`);
  console.log(`over ${harbour.peer("ship")?.connections[0]?.protocol}`);
}
