/** Sessions of WebTransport over connections in memory, against a peer that is written by hand. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { TransportError } from "../../src/errors.ts";
import type { QuicEvents, QuicStream } from "../../src/runtime/quic.ts";
import { WebTransportSession } from "../../src/transport/webtransport_session.ts";
import { hex } from "../protocol/wire_bytes.ts";
import { FakeConnection, type FakeStream } from "./fake_quic.ts";
import { turn, until } from "./link_recorder.ts";

const HOUR_MS = 3_600_000;
const ORIGIN = "https://app.example.org";
const RULES = { path: "/hawser", origins: new Set([ORIGIN]) };
const TARGET = { url: "wt://node1:9100/hawser", authority: "node1:9100", path: "/hawser" };

// By hand, from RFC 9114 and RFC 9204.
const CONTROL: Uint8Array = hex("00 04 09 08 01 33 01 ab603742 01");
const PLAIN_HTTP3 = hex("00 04 00");
const OK = hex("01 03 0000 d9");
const NOT_FOUND = hex("01 03 0000 db");
const NEVER = new AbortController().signal;

function ascii(text: string): number[] {
  return Array.from(text, (char) => char.charCodeAt(0));
}

/** A HEADERS frame: literals with literal names. */
function headers(fields: Record<string, string>): Uint8Array {
  const section = [0, 0];
  for (const [name, value] of Object.entries(fields)) {
    section.push(...(name.length < 7 ? [0x20 | name.length] : [0x27, name.length - 7]));
    section.push(...ascii(name), value.length, ...ascii(value));
  }
  return Uint8Array.from([0x01, 0x40 | (section.length >> 8), section.length & 0xff, ...section]);
}

const REQUEST = {
  ":method": "CONNECT",
  ":protocol": "webtransport",
  ":scheme": "https",
  ":authority": "node1:9100",
  ":path": "/hawser",
};

/** Everything that a session tells, and a byte of each stream. */
class Recorder implements QuicEvents {
  readonly streams: QuicStream[] = [];
  readonly datagrams: Uint8Array[] = [];
  closed: { reason: unknown } | undefined;

  onStream(stream: QuicStream): void {
    this.streams.push(stream);
  }

  onDatagram(bytes: Uint8Array): void {
    this.datagrams.push(bytes);
  }

  onClose(reason: unknown): void {
    this.closed = { reason };
  }
}

/** A peer that has said what it can do. */
async function peer(connection: FakeConnection, control = CONTROL): Promise<Recorder> {
  const recorder = new Recorder();
  connection.open(recorder);
  const stream = await connection.openUniStream();
  stream.write(control);
  return recorder;
}

interface Listening {
  readonly dialer: FakeConnection;
  readonly recorder: Recorder;
  readonly accepting: Promise<WebTransportSession>;
}

async function listening(timeoutMs = HOUR_MS, control = CONTROL): Promise<Listening> {
  const [dialer, listener] = FakeConnection.pair();
  const accepting = WebTransportSession.accept(listener, RULES, timeoutMs);
  accepting.catch(() => {});
  return { dialer, recorder: await peer(dialer, control), accepting };
}

async function asked(dialer: FakeConnection, frame: Uint8Array): Promise<FakeStream> {
  const stream = await dialer.openStream();
  stream.write(frame);
  return stream;
}

async function firstBytes(stream: QuicStream): Promise<number[]> {
  const chunks = await stream.read();
  return [...chunks![0]!];
}

/** Status 200 with the draft that browsers ask for; other answers have the status alone. */
function answer(status: number): number[] {
  const draft: Record<string, string> = status === 200
    ? { "sec-webtransport-http3-draft": "draft02" }
    : {};
  const frame = [...headers({ ":status": `${status}`, ...draft })];
  // Ours has its length in one byte.
  return [1, frame[2]!, ...frame.slice(3)];
}

async function established(): Promise<
  Listening & { session: WebTransportSession; connect: FakeStream; events: Recorder }
> {
  const begun = await listening();
  const connect = await asked(begun.dialer, headers(REQUEST));
  const session = await begun.accepting;
  const events = new Recorder();
  session.open(events);
  return { ...begun, session, connect, events };
}

function handshakeFailed(pattern: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof TransportError, String(error));
    assert.equal(error.code, "HandshakeFailed", error.message);
    assert.match(error.message, pattern);
    return true;
  };
}

describe("the listener's side of a WebTransport session", () => {
  it("serves its path", async () => {
    const { connect, events, dialer } = await established();
    assert.deepEqual(await firstBytes(connect), answer(200));
    const stream = await asked(dialer, hex("4041 00 61"));
    await until(() => events.streams.length === 1, "the stream");
    const [own] = events.streams;
    assert.equal(own!.id, stream.id);
    assert.deepEqual(await firstBytes(own!), [0x61]);
    own!.write(hex("62"));
    assert.deepEqual(await firstBytes(stream), [0x62]);
  });

  it("waits for the settings, and for a request that comes in pieces", async () => {
    const [dialer, listener] = FakeConnection.pair();
    const accepting = WebTransportSession.accept(listener, RULES, HOUR_MS);
    dialer.open(new Recorder());
    const stream = await dialer.openStream();
    for (const byte of headers({ ...REQUEST, origin: ORIGIN })) stream.write(Uint8Array.of(byte));
    const early = await asked(dialer, hex("4041 00 63"));
    let accepted = false;
    accepting.then(() => accepted = true);
    await turn();
    assert.equal(accepted, false);
    const control = await dialer.openUniStream();
    for (const byte of CONTROL) control.write(Uint8Array.of(byte));
    const session = await accepting;
    assert.deepEqual(await firstBytes(stream), answer(200));
    const events = new Recorder();
    session.open(events);
    assert.deepEqual(events.streams.map(({ id }) => id), [early.id]);
    assert.deepEqual(await firstBytes(events.streams[0]!), [0x63]);
  });

  const refused: Record<string, [Record<string, string>, number, RegExp]> = {
    "another path": [{ ":path": "/other" }, 404, /: the path "\/other" is not served$/],
    "another protocol": [{ ":protocol": "websocket" }, 400, /something else than WebTransport$/],
    "another method": [{ ":method": "GET" }, 400, /something else than WebTransport$/],
    "another origin": [{ origin: "https://evil.example" }, 403, /origin ".*" may not come in$/],
  };
  for (const [what, [changes, status, why]] of Object.entries(refused)) {
    it(`refuses ${what}, and closes the connection`, async () => {
      const { dialer, recorder, accepting } = await listening();
      const stream = await asked(dialer, headers({ ...REQUEST, ...changes }));
      assert.deepEqual(await firstBytes(stream), answer(status));
      assert.equal(await stream.read(), undefined);
      await assert.rejects(accepting, handshakeFailed(why));
      assert.ok(recorder.closed !== undefined);
    });
  }

  it("says why it refused also where the dialer closes at once", async () => {
    const { dialer, accepting } = await listening();
    const stream = await asked(dialer, headers({ ...REQUEST, ":path": "/" }));
    await firstBytes(stream);
    dialer.close();
    await assert.rejects(accepting, handshakeFailed(/the path "\/" is not served$/));
  });

  it("has a deadline for the whole of it", async () => {
    const { dialer, accepting } = await listening(20);
    await asked(dialer, headers(REQUEST).subarray(0, 10));
    await assert.rejects(accepting, { code: "Timeout" });
    assert.ok(dialer.closed);
  });

  const broken: Record<string, (dialer: FakeConnection) => Promise<unknown>> = {
    "two control streams": async (dialer) => (await dialer.openUniStream()).write(CONTROL),
    "a control stream that does not begin with settings": async (dialer) =>
      (await dialer.openUniStream()).write(hex("00 07 01 00")),
    "a request that is longer than any may be": async (dialer) =>
      await asked(dialer, hex("01 80004001")),
    "a request with a dynamic table": async (dialer) => await asked(dialer, hex("01 03 0200 d9")),
    "a request without a method": async (dialer) => await asked(dialer, hex("01 02 0000")),
    "a request that ends early": async (dialer) =>
      (await asked(dialer, headers(REQUEST).subarray(0, 20))).end(),
  };
  for (const [what, write] of Object.entries(broken)) {
    it(`closes the connection: ${what}`, async () => {
      const { dialer, accepting } = await listening();
      await write(dialer);
      await assert.rejects(accepting, handshakeFailed(/^Cannot accept a connection from 127/));
      assert.ok(dialer.closed);
    });
  }

  it("closes the connection when its control stream ends, or fills a table", async () => {
    const { dialer, events } = await established();
    dialer.opened[0]!.end();
    await until(() => events.closed !== undefined, "the end");
    const other = await established();
    const qpack = await other.dialer.openUniStream();
    qpack.write(hex("02"));
    qpack.write(new Uint8Array(4097));
    await until(() => other.events.closed !== undefined, "the end");
  });

  it("has no use for other streams in one direction", async () => {
    const { dialer, events } = await established();
    for (const first of ["4054 00 01", "01 00", "21 00", "c000000000000021"]) {
      const stream = await dialer.openUniStream();
      stream.write(hex(first));
      await until(() => throws(() => stream.write(hex("00"))), "the reset");
    }
    const given = await dialer.openUniStream();
    given.write(hex("40"));
    await turn();
    given.reset();
    const ended = await dialer.openUniStream();
    ended.end();
    await turn();
    assert.deepEqual([events.streams, events.closed], [[], undefined]);
  });

  it("resets streams of other sessions, further requests, and what is neither", async () => {
    const { dialer, events } = await established();
    const others = [
      hex("4041 04 61"),
      headers(REQUEST),
      headers({ ...REQUEST, ":path": "/other" }),
      hex("4041 ffffffffffffffff 61"),
    ];
    for (const first of others) {
      const stream = await asked(dialer, first);
      await assert.rejects(stream.read());
    }
    const ended = await asked(dialer, hex("40"));
    ended.end();
    await assert.rejects(ended.read());
    assert.deepEqual([events.streams, events.closed], [[], undefined]);
  });

  it("keeps few streams that come before their request", async () => {
    const { dialer, accepting } = await listening();
    const early: FakeStream[] = [];
    for (let index = 0; index < 20; index++) early.push(await asked(dialer, hex("4041 4050 61")));
    // Number 80 is the request's.
    const connect = await asked(dialer, headers(REQUEST));
    assert.equal(connect.id, 80);
    const session = await accepting;
    const events = new Recorder();
    session.open(events);
    assert.deepEqual(events.streams.map(({ id }) => id), early.slice(0, 16).map(({ id }) => id));
    await assert.rejects(early[16]!.read());
  });

  it("ends with its CONNECT stream, whatever stands on that", async () => {
    const { connect, events, dialer } = await established();
    // A capsule in a DATA frame.
    connect.write(hex("00 08 6843 05 00000000 78"));
    connect.end();
    await until(() => events.closed !== undefined, "the end");
    assert.ok(dialer.closed);
  });

  it("brings datagrams of its own only", async () => {
    const { dialer, events, session, recorder } = await established();
    for (const datagram of ["01 61", "00 62", "", "40"]) dialer.sendDatagram(hex(datagram));
    assert.deepEqual(events.datagrams, [hex("62")]);
    assert.equal(session.maxDatagramBytes, 1199);
    assert.ok(session.sendDatagram(hex("63")));
    assert.deepEqual(recorder.datagrams, [hex("00 63")]);
  });

  it("has no datagrams where the other side has none", async () => {
    const { dialer, accepting, recorder } = await listening(HOUR_MS, PLAIN_HTTP3);
    await asked(dialer, headers(REQUEST));
    const session = await accepting;
    assert.deepEqual([session.maxDatagramBytes, session.sendDatagram(hex("63"))], [0, false]);
    assert.deepEqual(recorder.datagrams, []);
  });

  it("comes through whatever is sent", async () => {
    const stream = fc.record({
      uni: fc.boolean(),
      first: fc.constantFrom("", "00", "02", "4041", "01", "00 04", "4041 00", "40"),
      bytes: fc.uint8Array({ maxLength: 40 }),
      end: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(stream, { maxLength: 6 }), async (streams) => {
        const { dialer, accepting } = await listening();
        for (const { uni, first, bytes, end } of streams) {
          if (dialer.closed) break;
          const stream = uni ? await dialer.openUniStream() : await dialer.openStream();
          if (throws(() => stream.write(Uint8Array.from([...hex(first), ...bytes])))) continue;
          if (end) stream.end();
        }
        dialer.close();
        await accepting.then((session) => session.close(), (error) => assert.ok(error));
      }),
      { numRuns: 200 },
    );
  });
});

describe("the dialer's side of a WebTransport session", () => {
  async function dialing(control = CONTROL) {
    const [dialer, listener] = FakeConnection.pair();
    const session = WebTransportSession.dial(dialer, TARGET, NEVER);
    session.catch(() => {});
    const recorder = await peer(listener, control);
    return { dialer, listener, recorder, session };
  }

  it("asks, and then opens streams", async () => {
    const { listener, recorder, session } = await dialing();
    await until(() => recorder.streams.length === 1, "the request");
    const [connect] = recorder.streams;
    const request = await firstBytes(connect!);
    assert.deepEqual(
      request.slice(3),
      [...headers({ ...REQUEST, "sec-webtransport-http3-draft02": "1" })].slice(3),
    );
    connect!.write(OK);
    const opened = await (await session).openStream();
    opened.write(hex("61"));
    await until(() => recorder.streams.length === 2, "the stream");
    assert.deepEqual(await firstBytes(recorder.streams[1]!), [0x40, 0x41, 0x00]);
    const events = new Recorder();
    (await session).open(events);
    const back = await listener.openStream();
    back.write(hex("4041 00 62"));
    await until(() => events.streams.length === 1, "the stream of the listener");
    assert.equal(events.streams[0]!.id, 1);
  });

  it("is refused with a status", async () => {
    const { dialer, recorder, session } = await dialing();
    await until(() => recorder.streams.length === 1, "the request");
    recorder.streams[0]!.write(NOT_FOUND);
    await assert.rejects(
      session,
      handshakeFailed(/^Cannot connect to wt:\/\/node1:9100\/hawser: .* with status 404$/),
    );
    assert.ok(dialer.closed);
  });

  it("asks nobody who has no WebTransport", async () => {
    const { recorder, session } = await dialing(PLAIN_HTTP3);
    await assert.rejects(session, handshakeFailed(/has HTTP\/3, but no WebTransport$/));
    assert.deepEqual(recorder.streams, []);
  });

  it("serves no requests", async () => {
    const { listener, recorder, session } = await dialing();
    await until(() => recorder.streams.length === 1, "the request");
    recorder.streams[0]!.write(OK);
    await session;
    const stream = await asked(listener, headers(REQUEST));
    await assert.rejects(stream.read());
  });

  it("is given up when its signal is aborted, also while nothing is answered", async () => {
    const [dialer, listener] = FakeConnection.pair();
    await peer(listener);
    const abort = new AbortController();
    const reason = new Error("enough");
    const session = WebTransportSession.dial(dialer, TARGET, abort.signal);
    abort.abort(reason);
    await assert.rejects(session, (error) => error === reason);
    assert.ok(dialer.closed);
  });

  it("tells why the connection broke", async () => {
    const { listener, session } = await dialing();
    listener.close();
    await assert.rejects(session, /the (connection|stream) (was|is) (closed|cut)/);
  });
});

function throws(action: () => unknown): boolean {
  try {
    action();
    return false;
  } catch {
    return true;
  }
}
