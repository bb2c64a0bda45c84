/**
 * The HTTP upgrade to WebSocket (RFC 6455, section 4), both sides, without sockets.
 *
 * @module
 */

import { TransportError } from "../errors.ts";
import { encodeBase64 } from "./base64.ts";
import { quote } from "./text.ts";

/** The subprotocol: a stream of bytes as in docs/protocol.md. */
export const SUBPROTOCOL = "hawser.v1";
/**
 * The same, said by a listener that can't see the dialer's certificate: the dialer proves its key.
 */
export const SUBPROTOCOL_PROOF = "hawser.v1.proof";
/** The longest head of a request or response. */
export const MAX_HEAD_BYTES: number = 8192;

const MAX_HEADERS = 100;
const KEY_BYTES = 16;
/** RFC 6455, section 1.3. */
const KEY_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
/** Sixteen bytes as base64: the last character of them has four bits to spare. */
const KEY = /^[A-Za-z0-9+/]{21}[AQgw]==$/;

/** A first line with the headers, their names in lower case. */
export interface HttpHead {
  /** As it came. */
  readonly line: string;
  /** Values of a name that came several times are joined by commas. */
  readonly headers: ReadonlyMap<string, string>;
}

/** Why a request is not served. */
export interface UpgradeRefusal {
  /** The status to answer with. */
  readonly status: number;
  /** What was wrong, for our own side. */
  readonly why: string;
}

/** What a request that is served asks for. */
export interface UpgradeRequest {
  /** Its Sec-WebSocket-Key. */
  readonly key: string;
  /** The subprotocols that it offers. */
  readonly offered: ReadonlySet<string>;
}

/** Collects a head from chunks of any size. */
export class HeadReader {
  #bytes = new Uint8Array(1024);
  #length = 0;

  /**
   * Takes the next bytes. Returns the head when it is whole, with the bytes behind it.
   *
   * @throws {TransportError} `InvalidFrame`: it is too long, or no head of HTTP
   */
  take(chunk: Uint8Array): { readonly head: HttpHead; readonly rest: Uint8Array } | undefined {
    const taken = Math.min(chunk.length, MAX_HEAD_BYTES - this.#length);
    this.#grow(this.#length + taken);
    this.#bytes.set(chunk.subarray(0, taken), this.#length);
    const before = this.#length;
    this.#length += taken;
    const end = findEnd(this.#bytes, Math.max(0, before - 3), this.#length);
    if (end < 0) {
      if (this.#length === MAX_HEAD_BYTES) {
        throw malformed(`the head is longer than ${MAX_HEAD_BYTES} bytes`);
      }
      return undefined;
    }
    const head = parseHead(this.#bytes.subarray(0, end));
    return { head, rest: chunk.subarray(end + 4 - before) };
  }

  #grow(length: number): void {
    if (length <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.min(MAX_HEAD_BYTES, Math.max(length, 2 * this.#length)));
    larger.set(this.#bytes);
    this.#bytes = larger;
  }
}

/** The dialer's request; `host` as in a URL, with the port where it is not the scheme's own. */
export function encodeRequest(
  host: string,
  path: string,
  key: string,
  offered: readonly string[],
): Uint8Array {
  return encodeHead([
    `GET ${path} HTTP/1.1`,
    `Host: ${host}`,
    "Upgrade: websocket",
    "Connection: Upgrade",
    `Sec-WebSocket-Key: ${key}`,
    "Sec-WebSocket-Version: 13",
    `Sec-WebSocket-Protocol: ${offered.join(", ")}`,
  ]);
}

/** Sixteen random bytes as the key of a request. */
export function encodeKey(random: Uint8Array): string {
  return encodeBase64(random.subarray(0, KEY_BYTES));
}

/** What a listener answers a key with, by the SHA-1 that is given. */
export function acceptKey(key: string, sha1: (bytes: Uint8Array) => Uint8Array): string {
  return encodeBase64(sha1(new TextEncoder().encode(key + KEY_SUFFIX)));
}

/** The listener's answer to a request that it serves. */
export function encodeAccept(accept: string, protocol: string): Uint8Array {
  return encodeHead([
    "HTTP/1.1 101 Switching Protocols",
    "Upgrade: websocket",
    "Connection: Upgrade",
    `Sec-WebSocket-Accept: ${accept}`,
    `Sec-WebSocket-Protocol: ${protocol}`,
  ]);
}

const STATUS_TEXTS: Readonly<Record<number, string>> = {
  400: "Bad Request",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  426: "Upgrade Required",
  503: "Service Unavailable",
  505: "HTTP Version Not Supported",
};

/** The listener's answer to a request that it does not serve; the connection ends with it. */
export function encodeRefusal(status: number): Uint8Array {
  const more = status === 426
    ? ["Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    : status === 405
    ? ["Allow: GET"]
    : [];
  const connection = status === 426 ? "Upgrade, close" : "close";
  return encodeHead([
    `HTTP/1.1 ${status} ${STATUS_TEXTS[status] ?? "Refused"}`,
    ...more,
    `Connection: ${connection}`,
    "Content-Length: 0",
  ]);
}

/** Whether a request asks for our WebSocket at this path; undefined takes any path. */
export function judgeRequest(
  { line, headers }: HttpHead,
  path: string | undefined,
): UpgradeRequest | UpgradeRefusal {
  const [method = "", target = "", version, more] = line.split(" ");
  if (more !== undefined || version === undefined || !/^HTTP\/\d\.\d$/.test(version)) {
    return { status: 400, why: "no request of HTTP" };
  }
  if (version !== "HTTP/1.1") return { status: 505, why: `a request of ${version}` };
  if (method !== "GET") return { status: 405, why: `the method ${quote(method)}` };
  if (path !== undefined && target !== path) return { status: 404, why: `path ${quote(target)}` };
  return judgeHeaders(headers);
}

const NO_ORIGINS: ReadonlySet<string> = new Set();

/**
 * The same of the headers alone, for a request whose first line somebody else has judged.
 *
 * @param origins The origins whose pages are let in.
 */
export function judgeHeaders(
  headers: Pick<ReadonlyMap<string, string>, "get">,
  origins: ReadonlySet<string> = NO_ORIGINS,
): UpgradeRequest | UpgradeRefusal {
  const get = (name: string) => headers.get(name) ?? "";
  if (get("host") === "") return { status: 400, why: "no Host" };
  if (get("transfer-encoding") !== "" || !["", "0"].includes(get("content-length"))) {
    return { status: 400, why: "a request with a body" };
  }
  if (!hasToken(get("upgrade"), "websocket") || !hasToken(get("connection"), "upgrade")) {
    return { status: 426, why: "no upgrade to WebSocket" };
  }
  if (get("sec-websocket-version") !== "13") {
    return { status: 426, why: `WebSocket version ${quote(get("sec-websocket-version"))}` };
  }
  const origin = get("origin");
  // Every browser says so: a page may open a WebSocket to wherever its user can.
  if (origin !== "" && !origins.has(origin)) {
    return { status: 403, why: `a page of ${quote(origin)}` };
  }
  const key = get("sec-websocket-key");
  if (!KEY.test(key)) return { status: 400, why: "no valid Sec-WebSocket-Key" };
  const offered = new Set(tokens(get("sec-websocket-protocol")));
  if (!offered.has(SUBPROTOCOL)) return { status: 400, why: `no subprotocol ${SUBPROTOCOL}` };
  return { key, offered };
}

/**
 * Which subprotocol the listener has chosen.
 *
 * @param action What the error says could not be done: "connect to ws://…".
 * @throws {TransportError} `HandshakeFailed`: it is not the WebSocket that was asked for;
 *   `ConnectionFailed`: the server, or a proxy before it, says to try again later
 */
export function judgeResponse(
  { line, headers }: HttpHead,
  accept: string,
  offered: readonly string[],
  action: string,
): string {
  const status = /^HTTP\/1\.1 (\d{3})(?: |$)/.exec(line)?.[1];
  if (status === undefined) throw refused(action, "the answer is not HTTP/1.1");
  if (status !== "101") {
    const why = `the server answered ${quote(line.slice("HTTP/1.1 ".length))}`;
    if (/^5|^429/.test(status)) {
      throw new TransportError("ConnectionFailed", `Cannot ${action}: ${why}`);
    }
    throw refused(action, why);
  }
  const get = (name: string) => headers.get(name) ?? "";
  if (!hasToken(get("upgrade"), "websocket") || !hasToken(get("connection"), "upgrade")) {
    throw refused(action, "the server upgraded to something else than WebSocket");
  }
  if (get("sec-websocket-accept") !== accept) {
    throw refused(action, "the server did not answer our key");
  }
  if (get("sec-websocket-extensions") !== "") {
    throw refused(action, "the server uses an extension that was not offered");
  }
  const protocol = get("sec-websocket-protocol");
  if (offered.includes(protocol)) return protocol;
  throw refused(action, `the server speaks the subprotocol ${quote(protocol)}`);
}

function refused(action: string, why: string): TransportError {
  return new TransportError("HandshakeFailed", `Cannot ${action}: ${why}`, {
    recovery: "check the host, port and path of the address, and what listens there",
  });
}

function malformed(why: string): TransportError {
  return new TransportError("InvalidFrame", `Cannot read the WebSocket upgrade: ${why}`);
}

function encodeHead(lines: readonly string[]): Uint8Array {
  return new TextEncoder().encode(`${lines.join("\r\n")}\r\n\r\n`);
}

/** Where the empty line that ends a head begins, or -1. */
function findEnd(bytes: Uint8Array, start: number, end: number): number {
  for (let i = start; i + 3 < end; i++) {
    if (bytes[i] === 13 && bytes[i + 1] === 10 && bytes[i + 2] === 13 && bytes[i + 3] === 10) {
      return i;
    }
  }
  return -1;
}

function parseHead(bytes: Uint8Array): HttpHead {
  const [line = "", ...rest] = latin1(bytes).split("\r\n");
  if (rest.length > MAX_HEADERS) throw malformed(`more than ${MAX_HEADERS} headers`);
  // deno-lint-ignore no-control-regex
  if (/[\0-\x1f\x7f]/.test(line)) throw malformed("a control character");
  const headers = new Map<string, string>();
  for (const text of rest) {
    const colon = text.indexOf(":");
    const name = text.slice(0, Math.max(0, colon)).toLowerCase();
    if (!TOKEN.test(name)) throw malformed("a header without a name");
    const value = trimBlanks(text.slice(colon + 1));
    // deno-lint-ignore no-control-regex
    if (/[\0-\x08\x0a-\x1f\x7f]/.test(value)) throw malformed("a control character");
    const earlier = headers.get(name);
    headers.set(name, earlier === undefined ? value : `${earlier}, ${value}`);
  }
  return { line, headers };
}

function latin1(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}

function hasToken(list: string, token: string): boolean {
  return tokens(list).some((item) => item.toLowerCase() === token);
}

function tokens(list: string): string[] {
  return list.split(",").map(trimBlanks);
}

/** Without spaces and tabs at both ends; by hand, for an expression would take quadratic time. */
function trimBlanks(text: string): string {
  const isBlank = (at: number) => text[at] === " " || text[at] === "\t";
  let [start, end] = [0, text.length];
  while (start < end && isBlank(start)) start++;
  while (end > start && isBlank(end - 1)) end--;
  return text.slice(start, end);
}
