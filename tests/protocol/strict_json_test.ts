import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { HandshakeError } from "../../src/errors.ts";
import { isObject, parseStrictJson } from "../../src/protocol/strict_json.ts";
import { malformed, utf8 } from "./identities.ts";
import { hex } from "./wire_bytes.ts";

const parse = (text: string, maxDepth = 8) => parseStrictJson(utf8(text), maxDepth);

/** Runs `run` and returns how often it called JSON.parse. */
function countParses(run: () => void): number {
  const real = JSON.parse;
  let calls = 0;
  JSON.parse = (...args: Parameters<typeof real>) => {
    calls++;
    return real(...args);
  };
  try {
    run();
  } finally {
    JSON.parse = real;
  }
  return calls;
}

describe("parseStrictJson", () => {
  it("parses an object as JSON.parse does", () => {
    const text =
      ' {"a": [1, -2.5e3, true, null, "\\u00e9 \\" \\\\ {[,:"], "b": {"a": {}}, "": 0}\n';
    assert.deepEqual(parse(text), {
      a: [1, -2500, true, null, 'é " \\ {[,:'],
      b: { a: {} },
      "": 0,
    });
    assert.deepEqual(parse("{}"), {});
  });

  for (const text of ["", " ", "[]", "1", '"a"', "null", "true", '[{"a":1}]']) {
    it(`refuses a root that is no object: ${JSON.stringify(text)}`, () => {
      assert.throws(() => parse(text), malformed("it is not"));
    });
  }

  const broken = ["{", "}", '{"a"}', '{"a":}', '{"a":1,}', "{]", "[}", '{"a":1}}', '{"a":1}{}'];
  broken.push('{"a', '{"a\\', '{"a\\"', "{'a':1}", "{a:1}", '{"a":01}', '{"a":NaN}', '{"a\n":1}');
  broken.push('{"\\x":1}', '{"\\u12":1}', '{"a":1}/**/', '{"a":1}\u0000', "\u00a0{}");
  for (const text of broken) {
    it(`refuses broken JSON: ${JSON.stringify(text)}`, () => {
      assert.throws(() => parse(text), malformed("Cannot read JSON"));
    });
  }

  it("refuses invalid UTF-8", () => {
    // {"a":"?"} with: a lone continuation byte, an overlong "/", a surrogate, a cut-off character.
    for (const bad of ["80", "c0af", "eda080", "e282", "ff", "f4908080"]) {
      const body = hex(`7b 22 61 22 3a 22 ${bad} 22 7d`);
      assert.throws(() => parseStrictJson(body, 8), malformed("UTF-8"), bad);
    }
    assert.deepEqual(parse('{"a":1}'), { a: 1 }, "and goes on with the next");
  });

  it("refuses a byte order mark", () => {
    assert.throws(() => parseStrictJson(hex("efbbbf 7b7d"), 8), malformed("byte order mark"));
  });

  it("takes the greatest depth and refuses one more", () => {
    assert.deepEqual(parse('{"a":[[{}]]}', 4), { a: [[{}]] });
    assert.throws(() => parse('{"a":[[{}]]}', 3), malformed("nested deeper than 3"));
    assert.deepEqual(parse('{"a":[],"b":[],"c":{}}', 2), { a: [], b: [], c: {} });
    assert.deepEqual(parse('{"a":"[[[[{{{{"}', 1), { a: "[[[[{{{{" });
    assert.deepEqual(parse('{"a":"\\"[[[["}', 1), { a: '"[[[[' });
  });

  it("refuses a depth of 10,000 before JSON.parse sees it", () => {
    const deep = [
      `{"a":${"[".repeat(10_000)}${"]".repeat(10_000)}}`,
      `${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}`,
      "[".repeat(10_000),
      '{"a":[{'.repeat(10_000),
    ];
    for (const text of deep) {
      const calls = countParses(() => assert.throws(() => parse(text), malformed("nested deeper")));
      assert.equal(calls, 0);
    }
  });

  const twice = ['{"a":1,"a":1}', '{"a":1,"\\u0061":2}', '{"\\/":1,"/":2}', '{"":1,"b":2,"":3}'];
  twice.push('{"x":{"a":1,"b":[],"a":1}}', '{"x":[{"a":{"b":1},"a":1}]}', '{"a":[1,{}],"a":1}');
  twice.push('{"__proto__":1,"__proto__":2}', '{"é":1,"\\u00E9":2}', '{ "a" :1 , "a" :2}');
  twice.push('{"\\ud83d\\ude00":1,"😀":2}');
  for (const text of twice) {
    it(`refuses a key that stands twice: ${text}`, () => {
      assert.throws(() => parse(text), malformed("twice"));
    });
  }

  it("takes the same key in different objects, and as a value", () => {
    const text = '{"a":"a","b":["a","a",{"a":"b"},{"a":"b"}],"c":{"a":"c","c":"a"},"A":1}';
    assert.deepEqual(parse(text), {
      a: "a",
      b: ["a", "a", { a: "b" }, { a: "b" }],
      c: { a: "c", c: "a" },
      A: 1,
    });
  });

  it("touches no prototype, whatever the keys are called", () => {
    const parsed = parse(
      '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"toString":2}',
    );
    assert.equal(Object.getPrototypeOf(parsed), Object.prototype);
    assert.deepEqual(Object.keys(parsed), ["__proto__", "constructor", "toString"]);
    assert.equal("polluted" in parsed, false);
    assert.equal("polluted" in {}, false);
  });

  it("handles 300,000 entries, and as many escaped keys, in linear time", () => {
    const keys = Array.from({ length: 300_000 }, (_, i) => `"\\u006b${i}":0`);
    assert.equal(Object.keys(parse(`{${keys.join()}}`)).length, 300_000);
    assert.throws(() => parse(`{${keys.join()},"k7":0}`), malformed("twice"));
    const list = parse(`{"a":[${"0,".repeat(299_999)}0]}`)["a"];
    assert.equal(Array.isArray(list) && list.length, 300_000);
    assert.throws(() => parse(`{"a":"${"\\".repeat(600_001)}`), malformed("does not end"));
  });

  it("quotes nothing of the text in its error", () => {
    for (const text of ['{"auth_token":"hunter2"', '{"hunter2":1,"hunter2":2}', '{"a":hunter2}']) {
      assert.throws(() => parse(text), (error) => {
        assert.ok(error instanceof HandshakeError);
        assert.equal(error.cause, undefined);
        return !error.message.includes("hunter2");
      });
    }
  });

  it("returns what JSON.parse returns, for every object JSON.stringify writes", () => {
    fc.assert(fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
      const text = JSON.stringify(value);
      assert.deepEqual(parse(text, 100), JSON.parse(text));
    }));
  });

  it("accepts nothing that JSON.parse refuses, and throws nothing but HandshakeError", () => {
    const pieces = fc.constantFrom(...'{}[]:,"\\ u0a1'.split(""), '"a":', '"b"', "\\u0061", "null");
    const text = fc.oneof(
      fc.array(pieces, { maxLength: 20 }).map((all) => `{${all.join("")}`),
      fc.string(),
    );
    fc.assert(
      fc.property(text, (text) => {
        let parsed: unknown;
        try {
          parsed = parse(text, 4);
        } catch (error) {
          assert.ok(error instanceof HandshakeError && error.rejectCode === "MALFORMED");
          return;
        }
        assert.deepEqual(parsed, JSON.parse(text));
      }),
      { numRuns: 2000 },
    );
  });

  it("throws nothing but HandshakeError on arbitrary bytes", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        parseStrictJson(bytes, 8);
      } catch (error) {
        assert.ok(error instanceof HandshakeError);
      }
    }));
  });
});

describe("isObject", () => {
  it("tells objects from arrays, null and scalars", () => {
    assert.equal(isObject({}), true);
    for (const value of [[], null, undefined, 1, "a", true]) assert.equal(isObject(value), false);
  });
});
