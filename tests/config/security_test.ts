import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { TransportError } from "../../src/errors.ts";
import type { EndpointOptions, SecurityMode, TlsOptions } from "../../src/options.ts";
import { validateSecurity } from "../../src/security.ts";

const PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const FULL: TlsOptions = {
  cert: PEM,
  key: PEM,
  ca: PEM,
  requireClientAuth: true,
  nodeIdVerification: "CommonName",
};

function refusal(options: Partial<EndpointOptions>): TransportError {
  try {
    validateSecurity({ nodeId: "node1", ...options });
  } catch (error) {
    assert.ok(error instanceof TransportError);
    return error;
  }
  return assert.fail("accepted");
}

function accepts(options: Partial<EndpointOptions>): void {
  validateSecurity({ nodeId: "node1", ...options });
}

describe("validateSecurity in strict mode", () => {
  it("accepts certificates, client authentication and a node id that is bound", () => {
    accepts({ security: "strict", tls: FULL });
    accepts({ security: "strict", tls: { ...FULL, nodeIdVerification: "SubjectAltName" } });
  });

  it("accepts paths in place of texts", () => {
    const { requireClientAuth, nodeIdVerification } = FULL as Required<TlsOptions>;
    const paths = { certPath: "node.crt", keyPath: "node.key", caCertPath: "ca.crt" };
    accepts({ tls: { ...paths, requireClientAuth, nodeIdVerification } });
  });

  it("is what applies where no mode is given", () => {
    assert.equal(refusal({}).code, "TlsRequired");
    assert.equal(refusal({ security: undefined as unknown as SecurityMode }).code, "TlsRequired");
    accepts({ tls: FULL });
  });

  it("names everything that is missing", () => {
    assert.equal(
      refusal({}).message,
      "Cannot use strict security: tls.cert or tls.certPath, tls.key or tls.keyPath " +
        "and tls.ca or tls.caCertPath are missing",
    );
    const { ca: _, ...withoutCa } = FULL;
    const error = refusal({ tls: withoutCa });
    assert.equal(error.code, "TlsRequired");
    assert.match(error.message, /: tls\.ca or tls\.caCertPath is missing$/);
    assert.equal(refusal({ tls: { ca: PEM } }).code, "TlsRequired");
  });

  it("demands that dialers show a certificate", () => {
    assert.equal(refusal({ tls: { ...FULL, requireClientAuth: false } }).code, "MtlsRequired");
    const { requireClientAuth: _, ...rest } = FULL;
    assert.equal(refusal({ tls: rest }).code, "MtlsRequired");
  });

  it("demands that the node id is bound to the certificate", () => {
    const code = "NodeIdVerificationRequired";
    assert.equal(refusal({ tls: { ...FULL, nodeIdVerification: "None" } }).code, code);
    const { nodeIdVerification: _, ...rest } = FULL;
    assert.equal(refusal({ tls: rest }).code, code);
  });
});

describe("validateSecurity in permissive mode", () => {
  const security = "permissive";

  it("demands authorities of a dialer, and no more", () => {
    accepts({ security, tls: { ca: PEM } });
    accepts({ security, listen: [], tls: { caCertPath: "ca.crt" } });
    const error = refusal({ security });
    assert.equal(error.code, "TlsRequired");
    assert.match(error.message, /permissive security: tls\.ca or tls\.caCertPath is missing$/);
    assert.match(error.recovery, /^give tls\.ca,/);
    assert.equal(refusal({ security, tls: { cert: PEM, key: PEM } }).code, "TlsRequired");
  });

  it("demands a certificate and its key too of an endpoint that listens", () => {
    const listen = "127.0.0.1:0";
    accepts({ security, listen, tls: { ca: PEM, cert: PEM, key: PEM } });
    const error = refusal({ security, listen, tls: { ca: PEM } });
    assert.equal(error.code, "TlsRequired");
    assert.match(error.message, /tls\.cert or tls\.certPath and tls\.key or tls\.keyPath are miss/);
  });
});

describe("validateSecurity in the other modes", () => {
  it("demands nothing", () => {
    accepts({ security: "development", listen: "127.0.0.1:0" });
    accepts({ security: "legacy", listen: "127.0.0.1:0" });
  });

  it("refuses a mode it doesn't know, rather than to take it for a weak one", () => {
    const error = refusal({ security: "Strict" as SecurityMode });
    assert.equal(error.code, "Config");
    assert.match(error.message, /^security: must be "strict", "permissive", "development" or/);
  });
});

describe("a wish to verify peers without an authority", () => {
  for (const security of ["development", "legacy"] as const) {
    for (
      const wish of [{ requireClientAuth: true }, { nodeIdVerification: "CommonName" }] as const
    ) {
      it(`is a ConfigError in ${security} mode: ${Object.keys(wish)[0]}`, () => {
        assert.throws(
          () => validateSecurity({ nodeId: "a", security, tls: wish }),
          { name: "ConfigError", path: "tls" },
        );
      });
    }
  }
});
