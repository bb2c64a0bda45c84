/** Two ends of a connection in memory, for what is spoken on connections of QUIC. */

import type { QuicConnection, QuicEvents, QuicStream } from "../../src/runtime/quic.ts";

const LONGEST_DATAGRAM = 1200;

/** One direction of a stream. */
class Pipe {
  #chunks: Uint8Array[] = [];
  #state: "open" | "ended" | "cut" = "open";
  #wake: () => void = () => {};

  put(chunk: Uint8Array): void {
    if (this.#state !== "open") throw new Error("the stream was cut");
    this.#chunks.push(chunk.slice());
    this.#wake();
  }

  end(): void {
    if (this.#state === "open") this.#state = "ended";
    this.#wake();
  }

  cut(): void {
    this.#state = "cut";
    this.#chunks = [];
    this.#wake();
  }

  async take(): Promise<readonly Uint8Array[] | undefined> {
    while (this.#chunks.length === 0) {
      if (this.#state === "ended") return undefined;
      if (this.#state === "cut") throw new Error("the stream was cut");
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    return this.#chunks.splice(0);
  }
}

/** A stream of which the tests see whether it was reset. */
export class FakeStream implements QuicStream {
  readonly id: number;
  onBroken: ((cause: unknown) => void) | undefined;
  wasReset = false;
  readonly #reads: Pipe;
  readonly #writes: Pipe;

  constructor(id: number, reads: Pipe, writes: Pipe) {
    this.id = id;
    this.#reads = reads;
    this.#writes = writes;
  }

  read(): Promise<readonly Uint8Array[] | undefined> {
    return this.#reads.take();
  }

  write(chunk: Uint8Array): Promise<void> | undefined {
    this.#writes.put(chunk);
    return undefined;
  }

  end(): void {
    this.#writes.end();
  }

  reset(): void {
    this.wasReset = true;
    this.lose();
  }

  lose(): void {
    this.#reads.cut();
    this.#writes.cut();
  }
}

/** One end. What the other side opened and sent before `open` is kept. */
export class FakeConnection implements QuicConnection {
  readonly local = { host: "127.0.0.1", port: 1 };
  readonly remote = { host: "127.0.0.1", port: 2 };
  readonly peerCertificate: undefined;
  readonly maxDatagramBytes: number = LONGEST_DATAGRAM;
  /** Our own streams, in the order of opening. */
  readonly opened: FakeStream[] = [];
  closed = false;
  #other!: FakeConnection;
  readonly #dialer: boolean;
  #events: QuicEvents | undefined;
  #waiting: ((events: QuicEvents) => void)[] = [];
  #bidi = 0;
  #uni = 0;

  constructor(dialer: boolean) {
    this.#dialer = dialer;
  }

  /** The dialer's end and the listener's. */
  static pair(): [FakeConnection, FakeConnection] {
    const [dialer, listener] = [new FakeConnection(true), new FakeConnection(false)];
    dialer.#other = listener;
    listener.#other = dialer;
    return [dialer, listener];
  }

  open(events: QuicEvents): void {
    this.#events = events;
    for (const tell of this.#waiting.splice(0)) tell(events);
  }

  // deno-lint-ignore require-await -- what it throws must reach the caller as a rejection
  async openStream(): Promise<FakeStream> {
    const id = 4 * this.#bidi++ + (this.#dialer ? 0 : 1);
    return this.#open(id, (events, stream) => events.onStream(stream));
  }

  // deno-lint-ignore require-await -- as above
  async openUniStream(): Promise<FakeStream> {
    const id = 4 * this.#uni++ + (this.#dialer ? 2 : 3);
    return this.#open(id, (events, stream) => events.onUniStream?.(stream));
  }

  sendDatagram(bytes: Uint8Array): boolean {
    this.#other.#tell((events) => events.onDatagram(bytes.slice()));
    return true;
  }

  close(): void {
    this.#end(undefined);
    this.#other.#end(new Error("the connection was closed with code 256"));
  }

  #open(id: number, tell: (events: QuicEvents, stream: FakeStream) => void): FakeStream {
    if (this.closed) throw new Error("the connection is closed");
    const [there, back] = [new Pipe(), new Pipe()];
    const [own, others] = [new FakeStream(id, back, there), new FakeStream(id, there, back)];
    this.opened.push(own);
    this.#other.#tell((events) => tell(events, others));
    return own;
  }

  #tell(tell: (events: QuicEvents) => void): void {
    if (this.#events === undefined) this.#waiting.push(tell);
    else tell(this.#events);
  }

  #end(reason: unknown): void {
    if (this.closed) return;
    this.closed = true;
    for (const stream of this.opened) stream.lose();
    this.#tell((events) => events.onClose(reason));
  }
}
