/** The record of the simulation itself: each kind of broken promise is seen. */

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Entry, Ledger, type ProcessId, type Stream } from "./ledger.ts";

const A: ProcessId = { node: 0, start: 0 };
const B: ProcessId = { node: 1, start: 0 };
const B_AGAIN: ProcessId = { node: 1, start: 1 };
const STREAM: Stream = { from: A, to: B.node, lane: "normal" };
const STRICT = { nothingLost: true, nothingReported: true, inOrder: true };
const EVERYBODY = () => true;

/** A ledger with messages that were accepted. */
class Book {
  readonly ledger: Ledger;
  readonly entries: Entry[] = [];
  readonly #payloads: Uint8Array[] = [];

  constructor(count: number, promises = STRICT, size = 40) {
    this.ledger = new Ledger(promises);
    for (let i = 0; i < count; i++) this.accept(size);
  }

  accept(size: number): void {
    const { entry, payload } = this.ledger.open(STREAM, size, "t");
    this.ledger.accept(entry);
    this.entries.push(entry);
    this.#payloads.push(payload);
  }

  receive(number: number, change: Partial<{ to: ProcessId; topic: string; flip: number }> = {}) {
    const payload = this.#payloads[number]!.slice();
    if (change.flip !== undefined) payload[change.flip]! ^= 1;
    const topic = change.topic ?? "t";
    this.ledger.receive(A.node, change.to ?? B, { payload, lane: "normal", topic });
  }

  report(number: number, fate: "unsent" | "unknown"): void {
    const arrival = { payload: this.#payloads[number]!, lane: "normal", topic: "t" } as const;
    this.ledger.report(A, B.node, arrival, fate, false);
  }

  finds(pattern: RegExp, survived: (process: ProcessId) => boolean = EVERYBODY): void {
    const violations = this.ledger.check(survived);
    assert.equal(violations.length, 1, violations.join("\n"));
    assert.match(violations[0]!, pattern);
  }

  findsNothing(survived: (process: ProcessId) => boolean = EVERYBODY): void {
    assert.deepEqual(this.ledger.check(survived), []);
  }
}

describe("the ledger", () => {
  it("is content where all arrives once and in order", () => {
    const book = new Book(3);
    for (const number of [0, 1, 2]) book.receive(number);
    book.ledger.ack(book.entries[1]!);
    book.findsNothing();
  });

  it("sees a message that was lost in silence, unless its sender died", () => {
    const book = new Book(3);
    for (const number of [0, 2]) book.receive(number);
    book.findsNothing((process) => process !== A);
    book.finds(/^message 1 of 0\.0 to 1 in normal \(40 bytes\) was lost in silence$/);
  });

  it("sees a message that was received twice, by one process or by two", () => {
    const book = new Book(1);
    book.receive(0);
    book.receive(0);
    book.finds(/received twice by start 0/);
    const other = new Book(1);
    other.receive(0);
    other.receive(0, { to: B_AGAIN });
    other.finds(/received by start 0 and by start 1/);
  });

  it("sees messages out of order", () => {
    const book = new Book(2);
    book.receive(1);
    book.receive(0);
    book.finds(/^message 0 .* was received after number 1$/);
  });

  it("sees other bytes, another topic, another lane, what was never sent", () => {
    const flipped = new Book(1);
    flipped.receive(0, { flip: 30 });
    flipped.finds(/with other bytes/);
    const topic = new Book(1);
    topic.receive(0, { topic: "other" });
    topic.finds(/has topic "other" instead of "t"/);
    const lane = new Book(1);
    const { entry, payload } = lane.ledger.open({ ...STREAM, lane: "bulk" }, 40, undefined);
    lane.ledger.refuse(entry);
    lane.receive(0);
    lane.ledger.receive(A.node, B, { payload, lane: "normal", topic: "t" });
    assert.match(lane.ledger.check(EVERYBODY)[0]!, /in lane bulk was received as one of node 0 in/);
    const never = new Book(0);
    never.ledger.receive(A.node, B, { payload, lane: "normal", topic: undefined });
    assert.match(never.ledger.check(EVERYBODY)[1]!, /received, never sent/);
  });

  it("sees an acknowledgement of what did not arrive", () => {
    const book = new Book(1);
    book.ledger.ack(book.entries[0]!);
    book.finds(/was acknowledged, and not received/, (process) => process !== A);
  });

  it("sees reports that are wrong, and those that should not be", () => {
    const promises = { ...STRICT, nothingReported: false };
    const unsent = new Book(1, promises);
    unsent.receive(0);
    unsent.report(0, "unsent");
    unsent.finds(/was reported unsent, and received/);
    const unknown = new Book(1, promises);
    unknown.receive(0);
    unknown.report(0, "unknown");
    unknown.findsNothing();
    const strict = new Book(1);
    strict.report(0, "unsent");
    strict.finds(/was reported undelivered \(unsent\)/);
    const acked = new Book(1, promises);
    acked.receive(0);
    acked.ledger.ack(acked.entries[0]!);
    acked.report(0, "unknown");
    acked.finds(/was acknowledged, and reported undelivered/);
    const twice = new Book(1, promises);
    twice.report(0, "unknown");
    twice.report(0, "unknown");
    twice.finds(/was reported twice/);
  });

  it("sees what was refused, and came all the same; and what was never settled", () => {
    const book = new Book(1);
    book.receive(0);
    book.ledger.refuse(book.entries[0]!);
    book.finds(/was refused, and received/);
    const open = new Ledger(STRICT);
    const { entry, payload } = open.open(STREAM, 40, "t");
    open.receive(A.node, B, { payload, lane: "normal", topic: "t" });
    assert.equal(entry.outcome, "open");
    assert.match(open.check(EVERYBODY)[0]!, /was never settled/);
  });

  it("knows messages too small to say who they are by their place", () => {
    const book = new Book(0);
    for (const size of [40, 0, 5, 0, 40]) book.accept(size);
    for (const number of [0, 1, 2, 3, 4]) book.receive(number);
    book.findsNothing();
    const lost = new Book(0);
    for (const size of [40, 0, 5, 0, 40]) lost.accept(size);
    for (const number of [0, 1, 2, 4]) lost.receive(number);
    lost.finds(/^message 3 .* \(0 bytes\) was lost in silence$/);
  });
});
