/** What the datagram protocol remembers: numbers, answers, requests, signs of life. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { RemoteError, RequestLostError, type TransportError } from "../../src/errors.ts";
import { Answers } from "../../src/protocol/datagram/answers.ts";
import { DatagramLink } from "../../src/protocol/datagram/link.ts";
import { NumberWindow } from "../../src/protocol/datagram/number_window.ts";
import { readRequest } from "../../src/protocol/datagram/packet.ts";
import { Repeats, type SendResult } from "../../src/protocol/datagram/repeats.ts";
import { PACKET } from "../../src/protocol/datagram/types.ts";
import type { Negotiated } from "../../src/protocol/negotiate.ts";
import { utf8 } from "./identities.ts";
import { concat, hex } from "./wire_bytes.ts";

describe("a window of numbers", () => {
  it("takes each number once, in any order, and none that is too far behind", () => {
    const window = new NumberWindow(64);
    const taken: [number, string][] = [
      [1, "new"],
      [1, "taken"],
      [3, "new"],
      [2, "new"],
      [3, "taken"],
      [70, "new"],
      [6, "too-old"],
      [7, "new"],
      [7, "taken"],
      [1_000_000, "new"],
      [999_937, "new"],
      [999_936, "too-old"],
      [Number.MAX_SAFE_INTEGER, "new"],
      [Number.MAX_SAFE_INTEGER, "taken"],
    ];
    for (const [number, expected] of taken) {
      assert.equal(window.check(number), expected, String(number));
      assert.equal(window.take(number), expected, String(number));
    }
    assert.equal(window.highest, Number.MAX_SAFE_INTEGER);
  });

  it("does what a set of all numbers would do", () => {
    fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 400 })), (numbers) => {
      const window = new NumberWindow(96);
      const seen = new Set<number>();
      let highest = 0;
      for (const number of numbers) {
        const old = number <= highest - 96;
        const expected = old ? "too-old" : seen.has(number) ? "taken" : "new";
        assert.equal(window.take(number), expected);
        if (old) continue;
        seen.add(number);
        highest = Math.max(highest, number);
      }
    }));
  });

  it("has a width that is a multiple of 32", () => {
    for (const width of [0, 31, 33, -32, NaN]) assert.throws(() => new NumberWindow(width));
  });
});

describe("a table of answers", () => {
  const budget = () => ({ bytes: 0, maxBytes: 1000 });
  const answer = (bytes: number) => ({ kind: PACKET.response, body: new Uint8Array(bytes) });

  it("lets a request run once, and repeats its answer", () => {
    const table = new Answers({ maxAnswers: 2, maxBytes: 100, maxAgeMs: 50, budget: budget() });
    assert.equal(table.admit(1, 0), "run");
    assert.equal(table.admit(1, 0), "ignore");
    const first = answer(10);
    table.settle(1, first, 0);
    assert.equal(table.admit(1, 0), first);
    table.settle(1, answer(20), 0);
    assert.equal(table.admit(1, 0), first);
  });

  it("forgets answers by number, bytes and age, and never runs what it forgot", () => {
    const shared = budget();
    const table = new Answers({ maxAnswers: 2, maxBytes: 100, maxAgeMs: 50, budget: shared });
    const run = (id: number, bytes: number, now: number) => {
      assert.equal(table.admit(id, now), "run");
      table.settle(id, answer(bytes), now);
    };
    for (const id of [1, 2, 3]) run(id, 1, 0);
    assert.deepEqual([table.size, table.bytes, shared.bytes], [2, 2, 2]);
    assert.equal(table.admit(1, 0), "forgotten");
    run(4, 100, 10);
    assert.deepEqual([table.size, table.bytes], [1, 100]);
    assert.equal(table.nextTimeout, 60);
    assert.equal(table.admit(4, 60), "forgotten");
    assert.deepEqual([table.size, table.bytes, table.nextTimeout], [0, 0, Infinity]);
    run(5, 101, 60);
    assert.equal(table.admit(5, 60), "forgotten");
    for (const id of [1, 2, 3, 4]) assert.equal(table.admit(id, 60), "forgotten");
  });

  it("remembers that an answer is not wanted any more", () => {
    const table = new Answers({ maxAnswers: 2, maxBytes: 100, maxAgeMs: 50, budget: budget() });
    assert.equal(table.admit(1, 0), "run");
    table.settle(1, undefined, 0);
    assert.equal(table.admit(1, 0), "ignore");
  });

  it("shares a budget with others, and pays with its own answers", () => {
    const shared = budget();
    const options = { maxAnswers: 100, maxBytes: 5000, maxAgeMs: 50, budget: shared };
    const [one, other] = [new Answers(options), new Answers(options)];
    one.admit(1, 0);
    one.settle(1, answer(900), 0);
    for (const id of [1, 2]) {
      other.admit(id, 0);
      other.settle(id, answer(80), 0);
    }
    assert.deepEqual([one.size, other.size, shared.bytes], [1, 1, 980]);
    assert.equal(other.admit(1, 0), "forgotten");
    one.clear();
    assert.equal(shared.bytes, 80);
  });
});

describe("requests that are repeated", () => {
  function repeating(result: () => SendResult = () => ({ sentTo: "p" })) {
    const sent: { id: number; msLeft: number; last: string | undefined }[] = [];
    const cancelled: number[] = [];
    const repeats = new Repeats({
      peer: "b",
      maxCalls: 3,
      maxBytes: 1000,
      random: () => 0.5,
      send: (body, last) => {
        const given = result();
        const { id, msLeft } = readRequest(body);
        if (given !== "no-link" && given !== "forgotten") sent.push({ id, msLeft, last });
        return given;
      },
      cancel: (id) => void cancelled.push(id),
      firstDelayMs: () => 100,
    });
    const outcomes: (string | TransportError)[] = [];
    const handle = {
      onResponse: (payload: Uint8Array) => void outcomes.push(String(payload.length)),
      onFailure: (error: TransportError) => void outcomes.push(error),
    };
    const start = (deadline: number | undefined, now: number, bytes = 1) =>
      repeats.start(1, undefined, new Uint8Array(bytes), deadline, handle, now);
    return { repeats, sent, cancelled, outcomes, start };
  }

  it("go out at once, then later and later, and say how long is left", () => {
    const { repeats, sent, start } = repeating();
    start(10_000, 0);
    const times: number[] = [];
    while (repeats.nextTimeout < 10_000) {
      times.push(repeats.nextTimeout);
      repeats.handleTimeout(repeats.nextTimeout);
    }
    assert.deepEqual(times, [100, 300, 700, 1500, 3100, 5100, 7100, 9100]);
    assert.deepEqual(sent.map(({ msLeft }) => msLeft), [
      10_000,
      ...times.map((at) => 10_000 - at),
    ]);
    assert.deepEqual(new Set(sent.map(({ id }) => id)), new Set([1]));
    assert.equal(repeats.repeated, 8);
  });

  it("end with the first answer", () => {
    const { repeats, outcomes, start } = repeating();
    start(undefined, 0);
    assert.equal(repeats.handleResponse(1, new Uint8Array(5)), true);
    assert.equal(repeats.handleResponse(1, new Uint8Array(6)), false);
    assert.equal(repeats.handleError(1, utf8("{}")), false);
    assert.deepEqual([outcomes, repeats.open, repeats.nextTimeout], [["5"], 0, Infinity]);
    start(undefined, 0);
    assert.throws(() => repeats.handleError(2, utf8("{}")), { code: "InvalidFrame" });
    assert.equal(repeats.open, 1);
    repeats.handleError(2, utf8('{"code":"NO","message":"never"}'));
    assert.ok(outcomes[1] instanceof RemoteError && outcomes[1].remoteCode === "NO");
  });

  it("end at their deadline, and say whether they ever left", () => {
    const { repeats, outcomes, start } = repeating(() => "no-link");
    start(50, 0);
    repeats.handleTimeout(49);
    assert.equal(outcomes.length, 0);
    repeats.handleTimeout(50);
    const [error] = outcomes;
    assert.ok(error instanceof RequestLostError);
    assert.deepEqual([error.code, error.outcome], ["Timeout", "not-run"]);
  });

  it("end where who knew of them has forgotten them", () => {
    let result: SendResult = { sentTo: "p" };
    const { repeats, sent, outcomes, start } = repeating(() => result);
    start(undefined, 0);
    result = "no-link";
    repeats.handleTimeout(100);
    result = "forgotten";
    repeats.linked(200);
    assert.equal(sent.length, 1);
    const [error] = outcomes;
    assert.ok(error instanceof RequestLostError);
    assert.deepEqual([error.code, error.outcome], ["ConnectionClosed", "may-have-run"]);
  });

  it("are bounded, and given up by a cancel", () => {
    const { repeats, cancelled, start } = repeating();
    const first = start(undefined, 0, 990);
    assert.throws(() => start(undefined, 0, 50), { code: "Backpressure", queued: 1 });
    repeats.cancel(first);
    assert.deepEqual(cancelled, [1]);
    repeats.cancel(first);
    assert.deepEqual(cancelled, [1]);
    for (let i = 0; i < 3; i++) start(undefined, 0);
    assert.throws(() => start(undefined, 0), { code: "Backpressure", queued: 3 });
  });
});

describe("a link over datagrams", () => {
  const negotiated = { nodeId: "b", version: 3 } as Negotiated;
  const [OWN, PEER] = [new Uint8Array(16).fill(1), new Uint8Array(16).fill(2)];

  function linked(keepaliveMs = 1000) {
    const sent: [kind: number, to: string, packet: Uint8Array][] = [];
    let token = 0;
    const link = new DatagramLink({
      negotiated,
      ownTag: OWN,
      peerTag: PEER,
      dialed: true,
      address: "here",
      seal: undefined,
      keys: undefined,
      keepaliveMs,
      randomBytes: (length) => new Uint8Array(length).fill(++token),
      send: (packet, to) => sent.push([packet[1]! & 15, to, packet]) > 0,
    }, 0);
    return { link, sent };
  }

  const packet = (number: number, kind: number, ...body: number[]) => {
    const digits = number.toString(16).padStart(16, "0");
    return concat(Uint8Array.of(0xda, 0x10 | kind), OWN, hex(digits), Uint8Array.from(body));
  };

  it("numbers what it sends, with the peer's tag", () => {
    const { link, sent } = linked();
    link.send(PACKET.data, hex("0161"), 0);
    link.send(PACKET.data, hex("0162"), 0);
    const begin = concat(hex("da14"), PEER);
    assert.deepEqual(sent.map(([, , packet]) => packet), [
      concat(begin, hex("0000000000000001 0161")),
      concat(begin, hex("0000000000000002 0162")),
    ]);
    assert.equal(link.bytesSent, 56);
  });

  it("asks a silent peer, four times in an interval, and gives it up after two", () => {
    const { link, sent } = linked();
    const times: number[] = [];
    let suspectAt = 0;
    while (true) {
      const at = link.nextTimeout;
      if (link.handleTimeout(0, at) === "dead") {
        assert.equal(at, 2000);
        break;
      }
      times.push(at);
      if (link.suspect && suspectAt === 0) suspectAt = at;
    }
    assert.deepEqual(times, [1000, 1250, 1500, 1750]);
    assert.equal(suspectAt, 1250);
    assert.ok(sent.every(([kind, to]) => kind === PACKET.ping && to === "here"));
  });

  it("takes any packet for a sign of life", () => {
    const { link } = linked();
    link.handleTimeout(0, 1000);
    link.handleTimeout(0, 1250);
    assert.equal(link.suspect, true);
    assert.deepEqual(link.open(packet(1, PACKET.data, 1), 0, 1300), hex("01"));
    assert.deepEqual([link.suspect, link.nextTimeout], [false, 2300]);
  });

  it("never asks without a keepalive, unless it is told to", () => {
    const { link } = linked(Infinity);
    assert.equal(link.nextTimeout, Infinity);
    link.probe(500, 0);
    assert.equal(link.nextTimeout, 0);
    link.handleTimeout(0, 0);
    assert.equal(link.nextTimeout, 200);
    link.handleTimeout(0, 200);
    assert.equal(link.nextTimeout, 400);
    link.handleTimeout(0, 400);
    assert.equal(link.nextTimeout, 500);
    assert.equal(link.handleTimeout(0, 500), "dead");
  });

  it("asks before it gives up, also where this process stood still meanwhile", () => {
    const { link, sent } = linked();
    assert.equal(link.handleTimeout(0, 60_000), undefined);
    assert.deepEqual([sent.length, link.nextTimeout], [1, 60_250]);
    assert.equal(link.handleTimeout(0, 60_250), undefined);
    assert.equal(link.handleTimeout(0, 60_500), "dead");
  });

  it("measures the round trip of a ping, by its token", () => {
    const { link, sent } = linked();
    link.ping(0, 10);
    const token = sent[0]![2].subarray(26);
    assert.equal(link.handlePong(hex("0909090909090909"), "here", 20), false);
    assert.equal(link.roundTrips.summary(), undefined);
    link.handlePong(token, "here", 35);
    assert.equal(link.roundTrips.summary()?.last, 25);
  });

  it("asks at a new address with no more than came from there, and not often", () => {
    const { link, sent } = linked();
    link.cameFrom("there", 33, 0, 0);
    assert.equal(sent.length, 0);
    link.cameFrom("there", 34, 0, 0);
    assert.deepEqual(sent.map(([kind, to, { length }]) => [kind, to, length]), [
      [PACKET.ping, "there", 34],
    ]);
    link.cameFrom("there", 1000, 0, 199);
    assert.equal(sent.length, 1);
    assert.equal(link.address, "here");
    const token = sent[0]![2].slice(26);
    assert.equal(link.handlePong(token, "elsewhere", 5), false);
    assert.equal(link.handlePong(token, "there", 5), true);
    assert.equal(link.address, "there");
  });

  it("answers a ping with as many bytes, there where it came from", () => {
    const { link, sent } = linked();
    link.handlePing(hex("0001020304050607"), "elsewhere", 0);
    assert.deepEqual(sent.map(([kind, to, { length }]) => [kind, to, length]), [
      [PACKET.pong, "elsewhere", 34],
    ]);
  });

  it("refuses what it has taken, and what has no number", () => {
    const { link } = linked();
    assert.deepEqual(link.open(packet(5, PACKET.data, 1), 0, 1), hex("01"));
    assert.equal(link.open(packet(5, PACKET.data, 1), 0, 2), "replayed");
    assert.equal(link.open(packet(0, PACKET.data, 1), 0, 2), "malformed");
    assert.equal(link.open(packet(6, PACKET.data).subarray(0, 25), 0, 2), "malformed");
    assert.deepEqual([link.packetsReceived, link.receivedAt], [1, 1]);
  });
});
