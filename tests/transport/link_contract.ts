/** What every transport owes: the same tests for each of them. */

import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { TransportError } from "../../src/errors.ts";
import type {
  DialOptions,
  Link,
  LinkTls,
  Listener,
  ListenOptions,
  Transport,
} from "../../src/transport/transport.ts";
import { countedBytes, CountedBytesCheck, LinkRecorder, until } from "./link_recorder.ts";

const MIB = 1024 * 1024;

/** A transport, and how it is used in the tests. */
export interface ContractSubject {
  readonly transport: Transport;
  /** An address that takes a free port. */
  readonly listenAddress: string;
  readonly dialerTls: LinkTls | undefined;
  readonly listenerTls: LinkTls | undefined;
  /** The DER bytes that each side should see of the other; undefined: none. */
  readonly dialerCertificate: Uint8Array | undefined;
  readonly listenerCertificate: Uint8Array | undefined;
}

/** A listener, what it accepted, and what it admitted and released. */
export class ContractListener {
  readonly links: Link[] = [];
  readonly errors: TransportError[] = [];
  readonly hosts: string[] = [];
  admitted = 0;
  released = 0;
  admits = true;
  listener!: Listener;

  get address(): string {
    return this.listener.address;
  }

  async start(
    transport: Transport,
    address: string,
    options: Partial<ListenOptions> = {},
  ): Promise<this> {
    this.listener = await transport.listen(address, {
      tls: undefined,
      keepaliveSecs: 30,
      handshakeTimeoutMs: 5000,
      admit: (host) => {
        this.hosts.push(host);
        if (!this.admits) return undefined;
        this.admitted++;
        return () => this.released++;
      },
      onLink: (link) => this.links.push(link),
      onError: (error) => this.errors.push(error),
      ...options,
    });
    return this;
  }

  /** The next accepted link. */
  async accepted(): Promise<Link> {
    let link: Link | undefined;
    await until(() => (link = this.links.shift()) !== undefined, "accepting a link");
    return link!;
  }
}

/** Options of a dial, never aborted unless told otherwise. */
export function dialOptions(tls: LinkTls | undefined, signal?: AbortSignal): DialOptions {
  return { tls, keepaliveSecs: 30, signal: signal ?? new AbortController().signal };
}

/** Runs all of the contract's tests on what `make` gives. */
export function linkContract(name: string, make: () => Promise<ContractSubject>): void {
  const start = async () => {
    const subject = await make();
    const server = await new ContractListener().start(subject.transport, subject.listenAddress, {
      tls: subject.listenerTls,
    });
    const dial = (signal?: AbortSignal) =>
      subject.transport.dial(server.address, dialOptions(subject.dialerTls, signal));
    /** Both ends of a new link. */
    const pair = async (): Promise<[Link, Link]> => {
      const dialed = await dial();
      return [dialed, await server.accepted()];
    };
    return { subject, server, dial, pair };
  };
  describe(`${name}: link`, () => linkTests(start));
  describe(`${name}: listener`, () => listenerTests(start));
}

interface Started {
  subject: ContractSubject;
  server: ContractListener;
  dial(signal?: AbortSignal): Promise<Link>;
  pair(): Promise<[Link, Link]>;
}

function linkTests(start: () => Promise<Started>): void {
  it("carries bytes both ways and knows its addresses", async () => {
    const { subject, server, pair } = await start();
    const [dialed, accepted] = await pair();
    const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
    a.call(() => a.link.write(Uint8Array.of(1, 2, 3)));
    b.call(() => b.link.write(Uint8Array.of(4, 5)));
    await a.received(2);
    await b.received(3);
    assert.deepEqual(a.bytes, Uint8Array.of(4, 5));
    assert.deepEqual(b.bytes, Uint8Array.of(1, 2, 3));

    const scheme = subject.transport.scheme;
    assert.equal(dialed.info.remoteAddress, server.address);
    assert.equal(accepted.info.localAddress, server.address);
    assert.equal(accepted.info.remoteAddress, dialed.info.localAddress);
    for (const link of [dialed, accepted]) {
      assert.equal(link.info.protocol, scheme);
      assert.ok(link.info.remoteAddress.includes(link.info.remoteHost));
      assert.equal(link.info.encrypted, subject.listenerTls !== undefined);
    }
    assert.deepEqual(dialed.info.peerCertificate, subject.listenerCertificate);
    assert.deepEqual(accepted.info.peerCertificate, subject.dialerCertificate);
    assert.deepEqual(server.hosts, [accepted.info.remoteHost]);
    await finish(server, a, b);
  });

  it("keeps what arrives before it is opened, the end included", async () => {
    const { server, pair } = await start();
    const [dialed, accepted] = await pair();
    const a = new LinkRecorder(dialed);
    a.link.write(countedBytes(100_000));
    a.link.end();
    // All of it is at the other side once it is out of here and an answer to it has come back.
    await a.until(() => a.link.bufferedBytes === 0, "sending");
    accepted.write(Uint8Array.of(9));
    await a.received(1);
    const b = new LinkRecorder(accepted);
    await b.until(() => b.told("end"));
    assert.deepEqual(b.bytes, countedBytes(100_000));
    b.link.end();
    assert.deepEqual([await a.closed(), await b.closed()], [undefined, undefined]);
    await released(server);
  });

  for (const first of ["dialing", "accepting"] as const) {
    it(`sends what is buffered before FIN, and still receives after it (${first} side first)`, async () => {
      const { server, pair } = await start();
      const links = await pair();
      if (first === "accepting") links.reverse();
      const [a, b] = links.map((link) => new LinkRecorder(link)) as [LinkRecorder, LinkRecorder];
      b.call(() => b.link.pause());
      assert.equal(a.call(() => a.link.write(countedBytes(8 * MIB))), false);
      a.call(() => a.link.end());
      assert.ok(a.link.bufferedBytes > 0);
      b.call(() => b.link.resume());
      await b.until(() => b.told("end"));
      assert.ok(equalBytes(b.bytes, countedBytes(8 * MIB)));
      assert.ok(!a.told("close") && !b.told("close"));
      assert.equal(a.link.bufferedBytes, 0);

      b.call(() => b.link.write(countedBytes(8 * MIB)));
      b.call(() => b.link.end());
      assert.deepEqual([await a.closed(), await b.closed()], [undefined, undefined]);
      assert.ok(equalBytes(a.bytes, countedBytes(8 * MIB)));
      for (const { events } of [a, b]) {
        assert.equal(events.filter((event) => event === "end").length, 1);
        assert.equal(events.at(-1), "close");
      }
      await released(server);
    });
  }

  it("closes by itself, in order, when both sides end at the same moment", async () => {
    const { server, pair } = await start();
    const [dialed, accepted] = await pair();
    const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
    for (const { link } of [a, b]) {
      link.write(Uint8Array.of(1));
      link.end();
      link.end();
    }
    assert.deepEqual([await a.closed(), await b.closed()], [undefined, undefined]);
    assert.deepEqual([a.receivedBytes, b.receivedBytes], [1, 1]);
    await released(server);
  });

  it("stops a sender of 64 MiB while it is paused, and loses nothing", async () => {
    const { server, pair } = await start();
    const [dialed, accepted] = await pair();
    const a = new LinkRecorder(dialed);
    const b = new LinkRecorder(accepted, { keep: false });
    const check = new CountedBytesCheck();
    b.onChunk = (chunk) => check.take(chunk);
    let sent = 0;
    const send = () => {
      while (sent < 64 * MIB) {
        const chunk = countedBytes(64 * 1024, sent);
        sent += chunk.length;
        if (!a.link.write(chunk)) return;
      }
      a.link.end();
    };
    a.onDrain = send;
    send();
    await b.received(MIB);
    b.call(() => b.link.pause());
    const whenPaused = b.receivedBytes;
    // It stands still when nothing has left for as long as a round trip on a second link takes.
    let last = -1;
    while (last !== a.link.bufferedBytes + sent) {
      last = a.link.bufferedBytes + sent;
      await roundTrips(pair, 20);
    }
    assert.ok(sent < 32 * MIB, `${sent} bytes were taken while nobody read`);
    assert.ok(a.link.bufferedBytes > 0);
    assert.equal(b.receivedBytes, whenPaused);

    b.call(() => b.link.resume());
    await b.until(() => b.told("end"));
    assert.equal(b.receivedBytes, 64 * MIB);
    b.link.end();
    assert.deepEqual([await a.closed(), await b.closed()], [undefined, undefined]);
    await server.listener.close();
  });

  it("delivers every byte in order under many pauses and writes of any size", async () => {
    const { server, pair } = await start();
    const sizes = fc.array(fc.integer({ min: 0, max: 100_000 }), { maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(sizes, fc.integer({ min: 1, max: 7 }), async (sizes, every) => {
        const [dialed, accepted] = await pair();
        const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
        let count = 0;
        b.onChunk = () => {
          if (++count % every !== 0) return;
          b.link.pause();
          if (every % 2 === 0) queueMicrotask(() => b.link.resume());
          else setTimeout(() => b.link.resume(), 0);
        };
        const total = sizes.reduce((sum, size) => sum + size, 0);
        const all = countedBytes(total + (4 - total % 4)).subarray(0, total);
        let offset = 0;
        for (const size of sizes) a.link.write(all.subarray(offset, offset += size));
        a.link.end();
        await b.until(() => b.told("end"));
        assert.equal(b.receivedBytes, total);
        assert.ok(equalBytes(b.bytes, all));
        b.link.end();
        assert.deepEqual([await a.closed(), await b.closed()], [undefined, undefined]);
      }),
      { numRuns: 12 },
    );
    await released(server);
  });

  it("refuses more above its high water, and tells when all has left", async () => {
    const { server, pair } = await start();
    const [dialed, accepted] = await pair();
    const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
    b.link.pause();
    let sent = 0;
    while (a.call(() => a.link.write(new Uint8Array(64 * 1024)))) sent += 64 * 1024;
    assert.ok(a.link.bufferedBytes > 0 && a.link.bufferedBytes <= sent + 64 * 1024);
    b.link.resume();
    await a.until(() => a.told("drain"), "the drain");
    assert.equal(a.link.bufferedBytes, 0);
    await b.received(sent + 64 * 1024);
    await finish(server, a, b);
  });

  it("ends at once when closed, and the other side hears of it", async () => {
    const { server, pair } = await start();
    const [dialed, accepted] = await pair();
    const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
    a.link.write(Uint8Array.of(1));
    await b.received(1);
    a.call(() => a.link.close());
    a.call(() => a.link.close());
    assert.equal(await a.closed(), undefined);
    await b.until(() => b.told("end") || b.told("close"));
    b.call(() => b.link.close());
    await b.closed();
    for (const { link } of [a, b]) {
      const before = link.bufferedBytes;
      assert.equal(link.write(new Uint8Array(10)), false);
      assert.equal(link.bufferedBytes, before + 10);
      link.pause();
      link.resume();
      link.end();
      link.close();
    }
    await released(server);
  });

  it("counts what had not left when it was closed", async () => {
    const { server, pair } = await start();
    const [dialed, accepted] = await pair();
    const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
    b.link.pause();
    a.link.write(new Uint8Array(32 * MIB));
    const buffered = a.link.bufferedBytes;
    a.link.close();
    await a.closed();
    assert.ok(a.link.bufferedBytes > 16 * MIB, `only ${a.link.bufferedBytes} of ${buffered}`);
    b.link.close();
    await b.closed();
    await released(server);
  });

  it("tells nothing more once it is closed from inside an event", async () => {
    const { server, pair } = await start();
    const [dialed, accepted] = await pair();
    const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
    b.onChunk = () => b.call(() => b.link.close());
    a.link.write(new Uint8Array(4 * MIB));
    await b.closed();
    assert.deepEqual(b.events, ["data", "close"]);
    await a.until(() => a.told("end") || a.told("close"));
    a.link.close();
    await a.closed();
    await released(server);
  });
}

function listenerTests(start: () => Promise<Started>): void {
  it("releases each of 100 admitted links exactly once", async () => {
    const { server, pair } = await start();
    for (let round = 0; round < 10; round++) {
      const pairs = await Promise.all(Array.from({ length: 10 }, () => pair()));
      const recorders = pairs.flat().map((link) => new LinkRecorder(link));
      for (const [index, { link }] of recorders.entries()) {
        if (index % 3 === 0) link.close();
        else link.end();
      }
      for (const recorder of recorders) {
        await recorder.until(() => recorder.told("end") || recorder.told("close"));
        recorder.link.close();
      }
      for (const recorder of recorders) await recorder.closed();
    }
    await until(() => server.released === 100, "releasing");
    assert.deepEqual([server.admitted, server.errors], [100, []]);
    await released(server);
  });

  it("closes a connection that is not admitted, without a link or a report", async () => {
    const { server, dial, pair } = await start();
    server.admits = false;
    await dial().then(
      async (link) => {
        const recorder = new LinkRecorder(link);
        await recorder.until(() => recorder.told("end") || recorder.told("close"));
        link.close();
      },
      (error) => assert.equal(error.code, "ConnectionFailed"),
    );
    await until(() => server.hosts.length === 1, "asking for admission");
    server.admits = true;
    const [a, b] = (await pair()).map((link) => new LinkRecorder(link)) as [
      LinkRecorder,
      LinkRecorder,
    ];
    assert.deepEqual([server.links, server.errors, server.admitted], [[], [], 1]);
    await finish(server, a, b);
  });

  it("stops accepting when closed, frees the address and leaves links alone", async () => {
    const { subject, server, dial, pair } = await start();
    const [dialed, accepted] = await pair();
    const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
    const { address } = server;
    await server.listener.close();
    await server.listener.close();
    await assert.rejects(dial(), { name: "TransportError", code: "ConnectionFailed" });
    const second = await new ContractListener().start(subject.transport, address, {
      tls: subject.listenerTls,
    });
    assert.equal(second.address, address);
    await second.listener.close();
    a.link.write(Uint8Array.of(7));
    await b.received(1);
    await finish(server, a, b);
  });

  it("refuses an address that is taken", async () => {
    const { subject, server } = await start();
    const again = new ContractListener().start(subject.transport, server.address, {
      tls: subject.listenerTls,
    });
    await assert.rejects(again, (error: unknown) => {
      assert.ok(error instanceof TransportError && error.cause !== undefined);
      assert.equal(error.code, "ConnectionFailed");
      assert.ok(error.message.startsWith(`Cannot listen on ${server.address}: `), error.message);
      return true;
    });
    await server.listener.close();
  });

  it("leaves a link alone when its signal is aborted after the dial", async () => {
    const { server, dial } = await start();
    const abort = new AbortController();
    const a = new LinkRecorder(await dial(abort.signal));
    const b = new LinkRecorder(await server.accepted());
    abort.abort(new Error("too late"));
    await send(a, b);
    await send(b, a);
    await finish(server, a, b);
  });

  it("rejects an aborted dial with the signal's reason, whenever it is aborted", async () => {
    const { server, dial } = await start();
    for (const turns of [-1, 0, 1, 2, 3, 5, 8, 20]) {
      const abort = new AbortController();
      const reason = new Error(`after ${turns}`);
      if (turns < 0) abort.abort(reason);
      const dialing = dial(abort.signal);
      dialing.catch(() => {});
      for (let turn = 0; turn < turns; turn++) await Promise.resolve();
      abort.abort(reason);
      await dialing.then((link) => {
        assert.ok(turns > 0, "a dial that was aborted in the same turn");
        new LinkRecorder(link).link.close();
      }, (error) => assert.equal(error, reason));
    }
    for (const link of server.links.splice(0)) new LinkRecorder(link).link.close();
    await until(() => {
      for (const link of server.links.splice(0)) new LinkRecorder(link).link.close();
      return server.released === server.admitted;
    }, "releasing");
    await server.listener.close();
  });
}

async function send(recorder: LinkRecorder, other: LinkRecorder): Promise<void> {
  const before = other.receivedBytes;
  recorder.link.write(Uint8Array.of(1));
  await other.received(before + 1);
}

async function roundTrips(pair: () => Promise<[Link, Link]>, count: number): Promise<void> {
  const [a, b] = (await pair()).map((link) => new LinkRecorder(link)) as [
    LinkRecorder,
    LinkRecorder,
  ];
  b.onChunk = (chunk) => b.link.write(chunk);
  for (let trip = 1; trip <= count; trip++) {
    a.link.write(Uint8Array.of(trip));
    await a.received(trip);
  }
  a.link.close();
  b.link.close();
  await Promise.all([a.closed(), b.closed()]);
}

/** Ends both sides in order and waits until the listener has everything back. */
async function finish(server: ContractListener, ...recorders: LinkRecorder[]): Promise<void> {
  for (const { link } of recorders) link.end();
  for (const recorder of recorders) assert.equal(await recorder.closed(), undefined);
  await released(server);
}

async function released(server: ContractListener): Promise<void> {
  await until(() => server.released === server.admitted, "releasing");
  await server.listener.close();
}

function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((value, index) => value === b[index]);
}
