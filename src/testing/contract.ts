/**
 * What every transport owes its endpoint, as tests that run under any runner.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import type { Link, LinkTls, Transport } from "../transport/transport.ts";
import { check, equalBytes, rejection, same } from "./assertions.ts";
import { ContractListener, dialOptions } from "./contract_listener.ts";
import { countedBytes, CountedBytesCheck, LinkRecorder, until } from "./link_recorder.ts";
import { Random } from "./random.ts";

const MIB = 1024 * 1024;

/** A transport, and how it is used in the tests. */
export interface ContractSubject {
  /** The transport. */
  readonly transport: Transport;
  /** An address that takes a free port, or a name that nobody has. */
  readonly listenAddress: string;
  /** TLS settings to dial with; none for plain text. */
  readonly dialerTls?: LinkTls | undefined;
  /** TLS settings to listen with; none for plain text. */
  readonly listenerTls?: LinkTls | undefined;
  /** The DER bytes of the certificate that listeners should see; undefined: none. */
  readonly dialerCertificate?: Uint8Array | undefined;
  /** The DER bytes of the certificate that dialers should see; undefined: none. */
  readonly listenerCertificate?: Uint8Array | undefined;
  /** Dialers have no address that both sides could know, as with Unix sockets. */
  readonly anonymousDialers?: boolean;
  /** What accepts links can't stop reading: a paused one that is sent too much closes. */
  readonly readsOnWhilePaused?: boolean;
}

/** One test of the contract. */
export interface ContractTest {
  /** What it shows. */
  readonly name: string;
  /** Resolves when it has been shown, rejects with what is wrong. */
  run(): Promise<void>;
  /** After the run: why it can't be shown on this transport. */
  readonly skipped: string | undefined;
}

/**
 * What every transport owes its endpoint: tests for your own, which run in real time under any test
 * runner. Give each of them 20 seconds.
 *
 * @param make Called for each test: the transport, and an address that nothing listens on.
 *
 * @example
 * ```ts
 * import type { Transport } from "@hawser/hawser";
 * import { linkContract } from "@hawser/hawser/testing";
 * import { describe, it } from "node:test";
 *
 * function testTransport(transport: Transport): void {
 *   let names = 0;
 *   const subject = () => ({ transport, listenAddress: `mine://test${names++}:1` });
 *   describe("my transport", () => {
 *     for (const { name, run } of linkContract(subject)) it(name, run);
 *   });
 * }
 * console.log(testTransport.name);
 * ```
 */
export function linkContract(
  make: () => ContractSubject | Promise<ContractSubject>,
): readonly ContractTest[] {
  const start = async (): Promise<Started> => {
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
  const all = [...linkTests, ...endTests, ...listenerTests];
  return all.map(([name, test]) => {
    let skipped: string | undefined;
    const run = async () => {
      skipped = await test(await start()) ?? undefined;
    };
    return {
      name,
      run,
      get skipped() {
        return skipped;
      },
    };
  });
}

/** A name and a test. */
type Test = readonly [string, (started: Started) => Promise<string | void>];

interface Started {
  subject: ContractSubject;
  server: ContractListener;
  dial(signal?: AbortSignal): Promise<Link>;
  pair(): Promise<[Link, Link]>;
}

const linkTests: readonly Test[] = [
  ["carries bytes both ways and knows its addresses", async ({ subject, server, pair }) => {
    const [dialed, accepted] = await pair();
    const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
    a.call(() => a.link.write(Uint8Array.of(1, 2, 3)));
    b.call(() => b.link.write(Uint8Array.of(4, 5)));
    await a.received(2);
    await b.received(3);
    same(a.bytes, Uint8Array.of(4, 5), "what the dialer got");
    same(b.bytes, Uint8Array.of(1, 2, 3), "what the listener got");

    const scheme = subject.transport.scheme;
    same(dialed.info.remoteAddress, server.address, "the dialer's remoteAddress");
    same(accepted.info.localAddress, server.address, "the listener's localAddress");
    if (subject.anonymousDialers !== true) {
      same(accepted.info.remoteAddress, dialed.info.localAddress, "the dialer's address");
    }
    for (const link of [dialed, accepted]) {
      same(link.info.protocol, scheme, "protocol");
      check(
        link.info.remoteAddress.includes(link.info.remoteHost),
        "remoteHost is no part of remoteAddress",
      );
      same(link.info.encrypted, subject.listenerTls !== undefined, "encrypted");
    }
    same(dialed.info.peerCertificate, subject.listenerCertificate, "the listener's certificate");
    same(accepted.info.peerCertificate, subject.dialerCertificate, "the dialer's certificate");
    same(server.hosts, [accepted.info.remoteHost], "the hosts that admit was asked for");
    await finish(server, a, b);
  }],

  ["keeps what arrives before it is opened, the end included", async ({ server, pair }) => {
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
    same(b.bytes, countedBytes(100_000), "what arrived before the opening");
    b.link.end();
    await closedInOrder(a, b);
    await released(server);
  }],

  [halfCloseName("dialing"), halfClose],
  [halfCloseName("accepting"), async (started) => {
    const pair = async () => (await started.pair()).reverse() as [Link, Link];
    await halfClose({ ...started, pair });
  }],

  [
    "closes by itself, in order, when both sides end at the same moment",
    async ({ server, pair }) => {
      const [dialed, accepted] = await pair();
      const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
      for (const { link } of [a, b]) {
        link.write(Uint8Array.of(1));
        link.end();
        link.end();
      }
      await closedInOrder(a, b);
      same([a.receivedBytes, b.receivedBytes], [1, 1], "bytes received");
      await released(server);
    },
  ],

  [
    "stops a sender of 64 MiB while it is paused, and loses nothing",
    async ({ subject, server, pair }) => {
      if (subject.readsOnWhilePaused) {
        await server.listener.close();
        return "what accepts the links can't stop reading";
      }
      const [dialed, accepted] = await pair();
      const a = new LinkRecorder(dialed);
      const b = new LinkRecorder(accepted, { keep: false });
      const counted = new CountedBytesCheck();
      b.onChunk = (chunk) => counted.take(chunk);
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
      check(sent < 32 * MIB, `${sent} bytes were taken while nobody read`);
      check(a.link.bufferedBytes > 0, "nothing is buffered");
      same(b.receivedBytes, whenPaused, "bytes received while paused");

      b.call(() => b.link.resume());
      await b.until(() => b.told("end"));
      same(b.receivedBytes, 64 * MIB, "bytes received");
      b.link.end();
      await closedInOrder(a, b);
      await server.listener.close();
    },
  ],

  ["delivers every byte in order under many pauses and writes of any size", async (started) => {
    const random = new Random(1);
    for (let run = 0; run < 12; run++) await writeAndPause(started, random);
    await released(started.server);
  }],

  ["refuses more above its high water, and tells when all has left", async ({ server, pair }) => {
    const [dialed, accepted] = await pair();
    const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
    b.link.pause();
    let sent = 0;
    while (a.call(() => a.link.write(new Uint8Array(64 * 1024)))) sent += 64 * 1024;
    const { bufferedBytes } = a.link;
    check(bufferedBytes > 0 && bufferedBytes <= sent + 64 * 1024, `${bufferedBytes} are buffered`);
    b.link.resume();
    await a.until(() => a.told("drain"), "the drain");
    same(a.link.bufferedBytes, 0, "bytes buffered");
    await b.received(sent + 64 * 1024);
    await finish(server, a, b);
  }],
];

/** What happens at the end of a link. */
const endTests: readonly Test[] = [
  ["ends at once when closed, and the other side hears of it", async ({ server, pair }) => {
    const [dialed, accepted] = await pair();
    const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
    a.link.write(Uint8Array.of(1));
    await b.received(1);
    a.call(() => a.link.close());
    a.call(() => a.link.close());
    await closedInOrder(a);
    await b.until(() => b.told("end") || b.told("close"));
    b.call(() => b.link.close());
    await b.closed();
    for (const { link } of [a, b]) {
      const before = link.bufferedBytes;
      same(link.write(new Uint8Array(10)), false, "what write says once closed");
      same(link.bufferedBytes, before + 10, "bytes buffered once closed");
      link.pause();
      link.resume();
      link.end();
      link.close();
    }
    await released(server);
  }],

  ["counts what had not left when it was closed", async ({ server, pair }) => {
    const [dialed, accepted] = await pair();
    const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
    b.link.pause();
    a.link.write(new Uint8Array(32 * MIB));
    const buffered = a.link.bufferedBytes;
    a.link.close();
    await a.closed();
    check(a.link.bufferedBytes > 16 * MIB, `only ${a.link.bufferedBytes} of ${buffered}`);
    b.link.close();
    await b.closed();
    await released(server);
  }],

  ["tells nothing more once it is closed from inside an event", async ({ server, pair }) => {
    const [dialed, accepted] = await pair();
    const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
    b.onChunk = () => b.call(() => b.link.close());
    a.link.write(new Uint8Array(4 * MIB));
    await b.closed();
    same(b.events, ["data", "close"], "the events");
    await a.until(() => a.told("end") || a.told("close"));
    a.link.close();
    await a.closed();
    await released(server);
  }],
];

const listenerTests: readonly Test[] = [
  ["releases each of 100 admitted links exactly once", async ({ server, pair }) => {
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
    same([server.admitted, server.errors], [100, []], "links admitted, and errors");
    await released(server);
  }],

  [
    "closes a connection that is not admitted, without a link or a report",
    async ({ server, dial, pair }) => {
      server.admits = false;
      await dial().then(
        async (link) => {
          const recorder = new LinkRecorder(link);
          await recorder.until(() => recorder.told("end") || recorder.told("close"));
          link.close();
        },
        (error) => same(error.code, "ConnectionFailed", "the code"),
      );
      await until(() => server.hosts.length === 1, "asking for admission");
      server.admits = true;
      const [a, b] = (await pair()).map((link) => new LinkRecorder(link)) as [
        LinkRecorder,
        LinkRecorder,
      ];
      same([server.links, server.errors, server.admitted], [[], [], 1], "links, errors, admitted");
      await finish(server, a, b);
    },
  ],

  [
    "stops accepting when closed, frees the address and leaves links alone",
    async ({ subject, server, dial, pair }) => {
      const [dialed, accepted] = await pair();
      const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
      const { address } = server;
      await server.listener.close();
      await server.listener.close();
      await connectionFailed(dial(), "dialing where nobody listens any more");
      const second = await new ContractListener().start(subject.transport, address, {
        tls: subject.listenerTls,
      });
      same(second.address, address, "the address, listened on again");
      await second.listener.close();
      a.link.write(Uint8Array.of(7));
      await b.received(1);
      await finish(server, a, b);
    },
  ],

  ["refuses an address that is taken", async ({ subject, server }) => {
    const again = new ContractListener().start(subject.transport, server.address, {
      tls: subject.listenerTls,
    });
    const error = await connectionFailed(again, "listening on an address that is taken");
    check(error.cause !== undefined, "the error has no cause");
    const expected = `Cannot listen on ${server.address}: `;
    check(error.message.startsWith(expected), `the message is "${error.message}"`);
    await server.listener.close();
  }],

  ["leaves a link alone when its signal is aborted after the dial", async ({ server, dial }) => {
    const abort = new AbortController();
    const a = new LinkRecorder(await dial(abort.signal));
    const b = new LinkRecorder(await server.accepted());
    abort.abort(new Error("too late"));
    await send(a, b);
    await send(b, a);
    await finish(server, a, b);
  }],

  [
    "rejects an aborted dial with the signal's reason, whenever it is aborted",
    async ({ server, dial }) => {
      for (const turns of [-1, 0, 1, 2, 3, 5, 8, 20]) {
        const abort = new AbortController();
        const reason = new Error(`after ${turns}`);
        if (turns < 0) abort.abort(reason);
        const dialing = dial(abort.signal);
        dialing.catch(() => {});
        for (let turn = 0; turn < turns; turn++) await Promise.resolve();
        abort.abort(reason);
        await dialing.then((link) => {
          check(turns > 0, "a dial that was aborted in the same turn");
          new LinkRecorder(link).link.close();
        }, (error) => same(error, reason, "what the dial rejects with"));
      }
      for (const link of server.links.splice(0)) new LinkRecorder(link).link.close();
      await until(() => {
        for (const link of server.links.splice(0)) new LinkRecorder(link).link.close();
        return server.released === server.admitted;
      }, "releasing");
      await server.listener.close();
    },
  ],
];

async function writeAndPause({ pair }: Started, random: Random): Promise<void> {
  const [dialed, accepted] = await pair();
  const [a, b] = [new LinkRecorder(dialed), new LinkRecorder(accepted)];
  const most = random.pick([0, 3, 1_000, 100_000]);
  const sizes = Array.from({ length: random.between(0, 40) }, () => random.between(0, most));
  const every = random.between(1, 7);
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
  same(b.receivedBytes, total, "bytes received");
  check(equalBytes(b.bytes, all), "other bytes arrived");
  b.link.end();
  await closedInOrder(a, b);
}

function halfCloseName(first: string): string {
  return `sends what is buffered before FIN, and still receives after it (${first} side first)`;
}

async function halfClose({ server, pair }: Started): Promise<void> {
  const [first, second] = await pair();
  const [a, b] = [new LinkRecorder(first), new LinkRecorder(second)];
  b.call(() => b.link.pause());
  same(a.call(() => a.link.write(countedBytes(8 * MIB))), false, "what write says of 8 MiB");
  a.call(() => a.link.end());
  check(a.link.bufferedBytes > 0, "nothing is buffered");
  b.call(() => b.link.resume());
  await b.until(() => b.told("end"));
  check(equalBytes(b.bytes, countedBytes(8 * MIB)), "other bytes arrived");
  check(!a.told("close") && !b.told("close"), "the other direction is closed, too");
  await a.until(() => a.link.bufferedBytes === 0, "all of it leaving");

  b.call(() => b.link.write(countedBytes(8 * MIB)));
  b.call(() => b.link.end());
  await closedInOrder(a, b);
  check(equalBytes(a.bytes, countedBytes(8 * MIB)), "other bytes came back");
  for (const { events } of [a, b]) {
    same(events.filter((event) => event === "end").length, 1, "ends that were told");
    same(events.at(-1), "close", "the last event");
  }
  await released(server);
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

async function connectionFailed(promise: Promise<unknown>, what: string): Promise<TransportError> {
  const error = await rejection(promise, what);
  check(error instanceof TransportError, `${what} failed with ${error}`);
  same(error.code, "ConnectionFailed", "the code");
  return error;
}

async function closedInOrder(...recorders: LinkRecorder[]): Promise<void> {
  for (const recorder of recorders) same(await recorder.closed(), undefined, "the close's error");
}

/** Ends both sides in order and waits until the listener has everything back. */
async function finish(server: ContractListener, ...recorders: LinkRecorder[]): Promise<void> {
  for (const { link } of recorders) link.end();
  await closedInOrder(...recorders);
  await released(server);
}

async function released(server: ContractListener): Promise<void> {
  await until(() => server.released === server.admitted, "releasing");
  await server.listener.close();
}
