import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { quote } from "../../src/protocol/text.ts";

describe("quote", () => {
  it("puts printable ASCII in quotes as it is", () => {
    assert.equal(quote("node-1 [x] ~!"), '"node-1 [x] ~!"');
    assert.equal(quote(""), '""');
  });

  it("escapes control characters, quotes, backslashes and everything beyond ASCII", () => {
    assert.equal(quote("\u001b[2J\r\n\u0000\u007f"), '"\\u001b[2J\\u000d\\u000a\\u0000\\u007f"');
    assert.equal(quote('a"b\\c'), '"a\\"b\\\\c"');
    assert.equal(quote("é\u202e😀\ud800"), '"\\u00e9\\u202e\\ud83d\\ude00\\ud800"');
  });

  it("cuts to the given length, 64 by default, and shows that it did", () => {
    assert.equal(quote("x".repeat(64)), `"${"x".repeat(64)}"`);
    assert.equal(quote("x".repeat(1_000_000)), `"${"x".repeat(64)}…"`);
    assert.equal(quote("abc", 2), '"ab…"');
    assert.equal(quote("\u001bbc", 1), '"\\u001b…"');
  });

  it("writes what JSON.parse reads back, as long as nothing is cut", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => {
      const quoted = quote(text, 1000);
      assert.match(quoted, /^"[ -~]*"$/);
      assert.equal(JSON.parse(quoted), text);
    }));
  });
});
