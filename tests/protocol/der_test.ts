import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { TransportError } from "../../src/errors.ts";
import { DerReader, readOid } from "../../src/protocol/der.ts";

const reader = (...bytes: number[]) => new DerReader(Uint8Array.from(bytes));
const refuses = (...bytes: number[]) =>
  assert.throws(
    () => reader(...bytes).next(),
    (error) => error instanceof TransportError && error.code === "IdentityMismatch",
    bytes.slice(0, 8).join(),
  );

describe("reading DER", () => {
  it("reads elements one after the other with lengths of one to three bytes", () => {
    const elements = reader(
      ...[0x05, 0x00, 0x04, 0x01, 0x07, 0x04, 0x81, 0x80, ...Array(0x80).fill(1)],
      ...[0x04, 0x82, 0x01, 0x00, ...Array(0x100).fill(2)],
    );
    const lengths: number[] = [];
    while (!elements.done) lengths.push(elements.next().contents.length);
    assert.deepEqual(lengths, [0, 1, 0x80, 0x100]);
  });

  it("gives views and copies nothing", () => {
    const bytes = Uint8Array.of(0x30, 0x03, 0x04, 0x01, 0x07);
    const inner = new DerReader(bytes).enter(0x30, "it").expect(0x04, "it");
    assert.deepEqual([inner.buffer, inner.byteOffset], [bytes.buffer, 4]);
  });

  it("refuses a length above what is there", () => {
    refuses(0x04, 0x01);
    refuses(0x04, 0x05, 0, 0, 0, 0);
    refuses(0x04, 0x84, 0xff, 0xff, 0xff, 0xff, 0);
    refuses(0x04, 0x84, 0x7f, 0xff, 0xff, 0xff, 0);
  });

  it("refuses a length that is indefinite, padded, or of more than four bytes", () => {
    refuses(0x30, 0x80, 0, 0);
    refuses(0x04, 0x81, 0x01, 0);
    refuses(0x04, 0x81, 0x7f, ...Array(0x7f).fill(0));
    refuses(0x04, 0x82, 0x00, 0x80, ...Array(0x80).fill(0));
    refuses(0x04, 0x85, 0, 0, 0, 0, 1, 0);
    refuses(0x04, 0xff, ...Array(0x7f).fill(0));
  });

  it("refuses a tag of several bytes and an end inside the head", () => {
    refuses(0x1f, 0x01, 0x00);
    refuses(0xbf, 0x81, 0x01, 0x00);
    refuses();
    refuses(0x04);
    refuses(0x04, 0x82, 0x01);
  });

  it("leaves an optional element that is another one where it is", () => {
    const elements = reader(0x02, 0x01, 0x05);
    assert.equal(elements.optional(0x01), undefined);
    assert.deepEqual(elements.optional(0x02), Uint8Array.of(5));
    assert.equal(elements.optional(0x02), undefined);
    elements.finish("the test");
  });

  it("takes the two numbers of an identifier's first byte apart", () => {
    const read = (...bytes: number[]) => readOid(Uint8Array.from(bytes));
    assert.deepEqual(
      [read(0x00), read(0x27), read(0x28), read(0x4f), read(0x50), read(0x78)],
      ["0.0", "0.39", "1.0", "1.39", "2.0", "2.40"],
    );
  });
});
