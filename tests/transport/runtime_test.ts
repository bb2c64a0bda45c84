import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { parseDescriptorLimit } from "../../src/runtime/descriptor_limit.ts";
import { normalizeHost } from "../../src/runtime/link_info.ts";
import { detectRuntime } from "../../src/runtime/runtime.ts";
import { linkFailed } from "../../src/runtime/socket_errors.ts";

describe("detectRuntime", () => {
  it("names the runtime and its version", () => {
    const { name, version } = detectRuntime();
    const expected = "Deno" in globalThis ? "deno" : "Bun" in globalThis ? "bun" : "node";
    assert.equal(name, expected);
    assert.match(version, /^\d+\.\d+\.\d+/);
  });

  it("tells a plausible limit of descriptors, or none", () => {
    const limit = detectRuntime().fileDescriptorLimit();
    assert.ok(limit === undefined || (Number.isSafeInteger(limit) && limit > 10));
  });
});

describe("parseDescriptorLimit", () => {
  const line = (soft: string) =>
    `Max processes  9 9 processes\nMax open files   ${soft}  4096 files\n`;
  it("takes the soft limit", () => assert.equal(parseDescriptorLimit(line("1024")), 1024));
  it("knows none where it is unlimited or missing", () => {
    assert.equal(parseDescriptorLimit(line("unlimited")), undefined);
    assert.equal(parseDescriptorLimit(""), undefined);
  });
});

describe("normalizeHost", () => {
  for (
    const [host, expected] of [
      ["::ffff:127.0.0.1", "127.0.0.1"],
      ["::FFFF:10.0.0.7", "10.0.0.7"],
      ["::ffff:7f00:1", "127.0.0.1"],
      ["::1", "::1"],
      ["192.0.2.1", "192.0.2.1"],
      ["fe80::1%eth0", "fe80::1%eth0"],
      ["::ffff:0:127.0.0.1", "::ffff:0:127.0.0.1"],
    ] as const
  ) {
    it(`writes ${host} as ${expected}`, () => assert.equal(normalizeHost(host), expected));
  }
});

describe("the errors of a link", () => {
  const failure = (code: string) =>
    linkFailed("tcp://127.0.0.1:1", Object.assign(new Error("why\nnot"), { code }));
  for (
    const [code, expected] of [
      ["ECONNRESET", "ConnectionClosed"],
      ["EPIPE", "ConnectionClosed"],
      ["ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED", "ClientCertificateRequired"],
      ["ERR_SSL_TLSV1_ALERT_CERTIFICATE_REQUIRED", "ClientCertificateRequired"],
      ["ERR_SSL_TLSV1_ALERT_UNKNOWN_CA", "HandshakeFailed"],
      ["ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED", "HandshakeFailed"],
    ] as const
  ) {
    it(`makes ${expected} of ${code}`, () => assert.equal(failure(code).code, expected));
  }

  it("are one line, with the code of the cause", () => {
    assert.equal(
      failure("ECONNRESET").message,
      "Cannot keep the connection with tcp://127.0.0.1:1: why not (ECONNRESET)",
    );
  });
});
