/** How QUIC streams begin that belong to a link. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { QuicConnection, QuicEvents, QuicStream } from "../../src/runtime/quic.ts";
import { Carrier } from "../../src/transport/quic_carrier.ts";
import { encodeHead, readHead } from "../../src/transport/quic_substream.ts";
import type { Link } from "../../src/transport/transport.ts";

/** A stream whose bytes come when the test says so. */
class FakeStream implements QuicStream {
  onBroken: ((cause: unknown) => void) | undefined;
  readonly id: number;
  readonly written: number[] = [];
  resets = 0;
  ended = false;
  readonly #chunks: (Uint8Array | undefined)[] = [];
  #wake: () => void = () => {};

  constructor(id: number, ...chunks: (readonly number[])[]) {
    this.id = id;
    this.bring(...chunks);
  }

  bring(...chunks: (readonly number[] | undefined)[]): void {
    for (const chunk of chunks) this.#chunks.push(chunk && Uint8Array.from(chunk));
    this.#wake();
  }

  async read(): Promise<readonly Uint8Array[] | undefined> {
    while (this.#chunks.length === 0) await new Promise<void>((resolve) => this.#wake = resolve);
    const chunk = this.#chunks.shift();
    return chunk && [chunk];
  }

  write(chunk: Uint8Array): undefined {
    this.written.push(...chunk);
  }

  end(): void {
    this.ended = true;
  }

  reset(): void {
    this.resets++;
    this.bring(undefined);
  }
}

/** A connection whose streams the test makes. */
class FakeConnection implements QuicConnection {
  readonly local = { host: "127.0.0.1", port: 1 };
  readonly remote = { host: "127.0.0.1", port: 2 };
  readonly peerCertificate: undefined;
  readonly maxDatagramBytes = 0;
  events!: QuicEvents;
  next: FakeStream[] = [];

  open(events: QuicEvents): void {
    this.events = events;
  }

  openStream(): Promise<QuicStream> {
    return Promise.resolve(this.next.shift()!);
  }

  sendDatagram(): boolean {
    return false;
  }

  close(): void {
    this.events.onClose(undefined);
  }
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

/** A listener's end of a connection, and what it was given. */
function accepting(): { connection: FakeConnection; carrier: Carrier; links: Link[] } {
  const connection = new FakeConnection();
  const links: Link[] = [];
  const carrier: Carrier = new Carrier(connection, {
    lingerMs: 60_000,
    maxSubstreams: 7,
    showCertificate: false,
    onStream: (carrier, stream) => links.push(carrier.addLink(stream)),
    onGone() {},
  });
  return { connection, carrier, links };
}

interface Opened {
  readonly received: number[];
  readonly substreams: Link[];
  closed: boolean;
}

function opened(link: Link): Opened {
  const events: Opened = { received: [], substreams: [], closed: false };
  link.open({
    onData: (chunk) => void events.received.push(...chunk),
    onDrain() {},
    onEnd() {},
    onClose: () => events.closed = true,
    onSubstream: (substream) => events.substreams.push(substream),
  });
  return events;
}

describe("the head of a QUIC stream that belongs to a link", () => {
  it("is a byte that no link begins with, and the number of the link's stream", () => {
    assert.deepEqual([...encodeHead(0)], [0xff, 0x00]);
    assert.deepEqual([...encodeHead(63)], [0xff, 0x3f]);
    assert.deepEqual([...encodeHead(64)], [0xff, 0x40, 0x40]);
    assert.deepEqual([...encodeHead(16_384)], [0xff, 0x80, 0x00, 0x40, 0x00]);
  });

  it("is read in pieces of any size, and what follows is kept", async () => {
    const begun = await readHead(new FakeStream(4, [0xff], [0x40], [0x40, 7, 8], [9]));
    assert.equal(begun!.parent, 64);
    assert.deepEqual(await begun!.stream.read(), [Uint8Array.of(7, 8)]);
    assert.deepEqual(await begun!.stream.read(), [Uint8Array.of(9)]);
  });

  it("is not there where a link begins", async () => {
    const begun = await readHead(new FakeStream(4, [0, 0], [1, 0]));
    assert.equal(begun!.parent, undefined);
    assert.deepEqual(await begun!.stream.read(), [Uint8Array.of(0, 0)]);
  });

  it("is no head with a number that nothing has, or without one: the stream is reset", async () => {
    for (const chunks of [[[0xff, 0xc0, 1, 2, 3, 4, 5, 6, 7]], [[0xff]], []]) {
      const stream = new FakeStream(4, ...chunks);
      stream.bring(undefined);
      assert.equal(await readHead(stream), undefined);
      assert.equal(stream.resets, 1);
    }
  });
});

describe("sub-streams of a QUIC connection", () => {
  it("come to the link that they name", async () => {
    const { connection, links } = accepting();
    for (const id of [0, 4]) connection.events.onStream(new FakeStream(id, [0, 0]));
    await turns();
    const [first, second] = links.map(opened) as [Opened, Opened];
    connection.events.onStream(new FakeStream(8, [0xff, 0x04, 1, 2]));
    await turns();
    assert.deepEqual([first.substreams.length, second.substreams.length], [0, 1]);
    const sub = opened(second.substreams[0]!);
    await turns();
    assert.deepEqual(sub.received, [1, 2]);
    connection.close();
    await turns();
    assert.ok(sub.closed && second.closed);
  });

  it("wait for somebody to tell, a few of them", async () => {
    const { connection, carrier, links } = accepting();
    connection.events.onStream(new FakeStream(4, [0, 0]));
    await turns();
    const streams = Array.from(
      { length: 9 },
      (_, index) => new FakeStream(8 + 4 * index, [0xff, 4]),
    );
    for (const stream of streams) connection.events.onStream(stream);
    await turns();
    assert.deepEqual(streams.map(({ resets }) => resets), [0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert.equal(carrier.substreamCount, 8);
    assert.equal(opened(links[0]!).substreams.length, 8);
    connection.close();
    await turns();
    assert.equal(carrier.substreamCount, 0);
  });

  it("are reset where there is no such link", async () => {
    const { connection, carrier, links } = accepting();
    const stream = new FakeStream(8, [0xff, 4]);
    connection.events.onStream(stream);
    await turns();
    assert.deepEqual([stream.resets, carrier.substreamCount, links.length], [1, 0, 0]);
    connection.close();
    await turns();
  });

  it("begin with their head, also where they are written to at once", async () => {
    const { connection, links } = accepting();
    connection.events.onStream(new FakeStream(4, [0, 0]));
    await turns();
    opened(links[0]!);
    const stream = new FakeStream(1);
    connection.next.push(stream);
    const sub = links[0]!.openSubstream!()!;
    opened(sub);
    sub.write(Uint8Array.of(7));
    sub.end();
    await turns();
    assert.deepEqual([stream.written, stream.ended], [[0xff, 0x04, 7], true]);
    connection.close();
    await turns();
  });

  it("are bounded, and gone when they are closed", async () => {
    const { connection, carrier, links } = accepting();
    connection.events.onStream(new FakeStream(4, [0, 0]));
    await turns();
    opened(links[0]!);
    const subs: Link[] = [];
    for (let id = 1; subs.length < 1_000; id += 4) {
      connection.next.push(new FakeStream(id));
      const sub = links[0]!.openSubstream!();
      if (sub === undefined) break;
      subs.push(sub);
      await turns();
    }
    assert.equal(subs.length, 7);
    for (const sub of subs) {
      opened(sub);
      sub.close();
    }
    assert.equal(carrier.substreamCount, 0);
    assert.notEqual(links[0]!.openSubstream!(), undefined);
    connection.close();
    await turns();
  });
});
