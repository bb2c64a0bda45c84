import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fc from "fast-check";
import { TransportError } from "../../mod.ts";
import {
  acceptKey,
  encodeAccept,
  encodeKey,
  encodeRefusal,
  encodeRequest,
  HeadReader,
  type HttpHead,
  judgeHeaders,
  judgeRequest,
  judgeResponse,
  MAX_HEAD_BYTES,
} from "../../src/protocol/websocket_handshake.ts";

const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const sha1 = (bytes: Uint8Array) => new Uint8Array(createHash("sha1").update(bytes).digest());
const bytes = (text: string) => new TextEncoder().encode(text);
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** A good request of a dialer, with headers changed or, where undefined, left out. */
function request(changed: Record<string, string | undefined> = {}, line?: string): string {
  const headers: Record<string, string | undefined> = {
    Host: "node1:9100",
    Upgrade: "websocket",
    Connection: "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "hawser.v1",
    ...changed,
  };
  return head(line ?? "GET /hawser HTTP/1.1", headers);
}

function response(changed: Record<string, string | undefined> = {}, line?: string): string {
  return head(line ?? "HTTP/1.1 101 Switching Protocols", {
    Upgrade: "websocket",
    Connection: "Upgrade",
    "Sec-WebSocket-Accept": ACCEPT,
    "Sec-WebSocket-Protocol": "hawser.v1",
    ...changed,
  });
}

function head(line: string, headers: Record<string, string | undefined>): string {
  const lines = Object.entries(headers).filter(([, value]) => value !== undefined);
  return `${[line, ...lines.map(([name, value]) => `${name}: ${value}`)].join("\r\n")}\r\n\r\n`;
}

function read(text: string): HttpHead {
  const taken = new HeadReader().take(bytes(text));
  assert.ok(taken !== undefined);
  assert.equal(taken.rest.length, 0);
  return taken.head;
}

describe("the key of a WebSocket upgrade, as in RFC 6455, section 1.3", () => {
  it("is answered as in the example", () => {
    assert.equal(encodeKey(bytes("the sample nonce")), KEY);
    assert.equal(acceptKey(KEY, sha1), ACCEPT);
  });
});

describe("the heads of a WebSocket upgrade", () => {
  it("are written byte by byte like this", () => {
    assert.equal(
      text(encodeRequest("node1:9100", "/hawser", KEY, ["hawser.v1", "hawser.v1.proof"])),
      "GET /hawser HTTP/1.1\r\nHost: node1:9100\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Key: ${KEY}\r\nSec-WebSocket-Version: 13\r\n` +
        "Sec-WebSocket-Protocol: hawser.v1, hawser.v1.proof\r\n\r\n",
    );
    assert.equal(
      text(encodeAccept(ACCEPT, "hawser.v1")),
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Accept: ${ACCEPT}\r\nSec-WebSocket-Protocol: hawser.v1\r\n\r\n`,
    );
    assert.equal(
      text(encodeRefusal(426)),
      "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
        "Connection: Upgrade, close\r\nContent-Length: 0\r\n\r\n",
    );
    assert.match(text(encodeRefusal(404)), /^HTTP\/1\.1 404 Not Found\r\nConnection: close\r\n/);
    assert.match(text(encodeRefusal(405)), /\r\nAllow: GET\r\n/);
  });

  it("are read however they are cut, and what stands behind them is left", () => {
    const whole = bytes(`${request()}behind it`);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1 }), (cuts) => {
        const reader = new HeadReader();
        let at = 0;
        for (let i = 0; at < whole.length; i++) {
          const taken = reader.take(whole.subarray(at, at += cuts[i % cuts.length]!));
          if (taken === undefined) continue;
          assert.equal(taken.head.line, "GET /hawser HTTP/1.1");
          assert.equal(taken.head.headers.get("host"), "node1:9100");
          assert.equal(text(taken.rest) + text(whole.subarray(at)), "behind it");
          return;
        }
        assert.fail("the head was not found");
      }),
    );
  });

  it("have names in any case, blanks around values, and values in several lines", () => {
    const { headers } = read("GET / HTTP/1.1\r\nhOST:\t a  b \r\nX:1\r\nx: 2\r\nY:\r\n\r\n");
    assert.deepEqual([...headers], [["host", "a  b"], ["x", "1, 2"], ["y", ""]]);
  });

  const bad: [what: string, text: string][] = [
    ["a folded line", "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"],
    ["a header without a colon", "GET / HTTP/1.1\r\nA\r\n\r\n"],
    ["a header without a name", "GET / HTTP/1.1\r\n: b\r\n\r\n"],
    ["a blank before the colon", "GET / HTTP/1.1\r\nA : b\r\n\r\n"],
    ["a bare line feed", "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n"],
    ["a zero byte", "GET /\0 HTTP/1.1\r\n\r\n"],
    ["an escape", "GET / HTTP/1.1\r\nA: \x1b[2J\r\n\r\n"],
    ["101 headers", `GET / HTTP/1.1\r\n${"A: b\r\n".repeat(101)}\r\n`],
    ["a head that does not end", "A".repeat(MAX_HEAD_BYTES)],
    ["a head that is too long", `GET / HTTP/1.1\r\nA: ${"b".repeat(MAX_HEAD_BYTES)}\r\n\r\n`],
  ];
  for (const [what, text] of bad) {
    it(`are refused with ${what}`, () => {
      assert.throws(() => new HeadReader().take(bytes(text)), { code: "InvalidFrame" });
    });
  }

  it("are refused with a TransportError alone, whatever comes", () => {
    const piece = fc.oneof(
      fc.constantFrom("GET / HTTP/1.1", "\r\n", "\r\n\r\n", "Host: a", ":", " ", "\0"),
      fc.string({ maxLength: 20 }),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        const reader = new HeadReader();
        try {
          for (const piece of pieces) {
            const taken = reader.take(bytes(piece));
            if (taken === undefined) continue;
            judgeRequest(taken.head, "/");
            judgeResponse(taken.head, ACCEPT, ["hawser.v1"], "connect to x");
            return;
          }
        } catch (error) {
          assert.ok(error instanceof TransportError, String(error));
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("a listener", () => {
  it("serves a good request, whatever else it says", () => {
    const judged = judgeRequest(read(request()), "/hawser");
    assert.deepEqual(judged, { key: KEY, offered: new Set(["hawser.v1"]) });
    for (
      const changed of [
        { Upgrade: "WebSocket" },
        { Connection: "keep-alive, upgrade" },
        { "Sec-WebSocket-Protocol": "chat,  hawser.v1 ,hawser.v1.proof" },
        { "Sec-WebSocket-Extensions": "permessage-deflate" },
        { Cookie: "a=b" },
        { "Content-Length": "0" },
      ]
    ) {
      const judged = judgeRequest(read(request(changed)), "/hawser");
      assert.ok("key" in judged, JSON.stringify(changed));
    }
    assert.ok("key" in judgeRequest(read(request()), undefined));
  });

  const refused: [what: string, status: number, text: string][] = [
    ["another path", 404, request({}, "GET /other HTTP/1.1")],
    ["a query", 404, request({}, "GET /hawser?a HTTP/1.1")],
    ["a whole URL", 404, request({}, "GET http://node1/hawser HTTP/1.1")],
    ["a method that is not GET", 405, request({}, "POST /hawser HTTP/1.1")],
    ["HTTP/1.0", 505, request({}, "GET /hawser HTTP/1.0")],
    ["no HTTP", 400, request({}, "GET /hawser")],
    ["a first line of four words", 400, request({}, "GET /haw ser HTTP/1.1")],
    ["no Host", 400, request({ Host: undefined })],
    ["no Upgrade", 426, request({ Upgrade: undefined })],
    ["an upgrade to something else", 426, request({ Upgrade: "h2c" })],
    ["no Connection", 426, request({ Connection: "keep-alive" })],
    ["no version", 426, request({ "Sec-WebSocket-Version": undefined })],
    ["version 8", 426, request({ "Sec-WebSocket-Version": "8" })],
    ["no key", 400, request({ "Sec-WebSocket-Key": undefined })],
    ["a key of 15 bytes", 400, request({ "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j" })],
    ["a key that is no base64", 400, request({ "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZR==" })],
    ["two keys", 400, request({ "Sec-WebSocket-Key": `${KEY}\r\nSec-WebSocket-Key: ${KEY}` })],
    ["no subprotocol", 400, request({ "Sec-WebSocket-Protocol": undefined })],
    ["other subprotocols", 400, request({ "Sec-WebSocket-Protocol": "hawser.v2, chat" })],
    ["a body", 400, request({ "Content-Length": "5" })],
    ["a body in chunks", 400, request({ "Transfer-Encoding": "chunked" })],
  ];
  for (const [what, status, text] of refused) {
    it(`answers ${what} with ${status}`, () => {
      const judged = judgeRequest(read(text), "/hawser");
      assert.ok("status" in judged);
      assert.equal(judged.status, status);
      assert.ok(judged.why !== "");
    });
  }

  it("judges the headers that a server has read", () => {
    const headers = new Map([...read(request()).headers]);
    assert.ok("key" in judgeHeaders(headers));
    headers.delete("upgrade");
    assert.deepEqual(judgeHeaders(headers), { status: 426, why: "no upgrade to WebSocket" });
  });
});

describe("a dialer", () => {
  const judge = (text: string, offered = ["hawser.v1", "hawser.v1.proof"]) =>
    judgeResponse(read(text), ACCEPT, offered, "connect to ws://node1:9100/");

  it("takes the answer to its own key, in one of the subprotocols that it offered", () => {
    assert.equal(judge(response()), "hawser.v1");
    assert.equal(judge(response({}, "HTTP/1.1 101")), "hawser.v1");
    const proof = response({ "Sec-WebSocket-Protocol": "hawser.v1.proof" });
    assert.equal(judge(proof), "hawser.v1.proof");
    assert.throws(() => judge(proof, ["hawser.v1"]), { code: "HandshakeFailed" });
  });

  const refused: [what: string, text: string, why: RegExp][] = [
    ["another accept", response({ "Sec-WebSocket-Accept": KEY }), /did not answer our key/],
    ["no accept", response({ "Sec-WebSocket-Accept": undefined }), /did not answer our key/],
    ["no subprotocol", response({ "Sec-WebSocket-Protocol": undefined }), /subprotocol ""/],
    ["two subprotocols", response({ "Sec-WebSocket-Protocol": "hawser.v1, a" }), /subprotocol/],
    ["an extension", response({ "Sec-WebSocket-Extensions": "permessage-deflate" }), /extension/],
    ["another upgrade", response({ Upgrade: "h2c" }), /something else/],
    ["no upgrade", response({ Connection: "close" }), /something else/],
    ["200", response({}, "HTTP/1.1 200 OK"), /the server answered "200 OK"$/],
    ["404", response({}, "HTTP/1.1 404 Not Found"), /the server answered "404 Not Found"$/],
    ["HTTP/2", response({}, "HTTP/2 101"), /not HTTP\/1\.1/],
    ["something else", response({}, "220 smtp.example.org"), /not HTTP\/1\.1/],
  ];
  for (const [what, text, why] of refused) {
    it(`refuses ${what}`, () => {
      assert.throws(() => judge(text), (error) => {
        assert.ok(error instanceof TransportError);
        assert.equal(error.code, "HandshakeFailed");
        assert.match(error.message, /^Cannot connect to ws:\/\/node1:9100\/: /);
        assert.match(error.message, why);
        return true;
      });
    });
  }

  for (const status of [429, 500, 502, 503, 504]) {
    it(`may try again after ${status}`, () => {
      assert.throws(() => judge(response({}, `HTTP/1.1 ${status} x`)), {
        code: "ConnectionFailed",
        retryable: true,
      });
    });
  }

  it("shows a server's words escaped and cut", () => {
    const line = `HTTP/1.1 400 ${"\u009b2J".repeat(100)}`;
    assert.throws(() => judge(response({}, line)), (error) => {
      assert.ok(error instanceof TransportError);
      assert.match(error.message, /^[ -~…]+$/);
      return error.message.length < 600;
    });
  });
});
