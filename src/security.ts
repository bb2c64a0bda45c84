/**
 * Whether the certificates in the options are what the security mode demands.
 *
 * @module
 */

import { TransportError } from "./errors.ts";
import type { EndpointOptions, ResolvedOptions, ResolvedTls } from "./options.ts";
import { resolveOptions } from "./resolve_options.ts";

/**
 * Says what is missing for the security mode of the options. `"strict"`, the default, demands a
 * certificate, its key and authorities, certificates of dialers, and a node id that is bound to the
 * certificate; `"permissive"` demands authorities, and a certificate with its key of an endpoint
 * that listens; `"development"` and `"legacy"` demand nothing. Files are not read.
 *
 * @throws {TransportError} `TlsRequired`, `MtlsRequired` or `NodeIdVerificationRequired`.
 * @throws {ConfigError} Where the options are wrong in themselves.
 *
 * @example
 * ```ts
 * import { TransportError, validateSecurity } from "@hawser/hawser";
 *
 * try {
 *   validateSecurity({ nodeId: "node1" });
 * } catch (error) {
 *   if (error instanceof TransportError) console.log(error.code); // TlsRequired
 * }
 * ```
 */
export function validateSecurity(options: EndpointOptions): void {
  checkSecurity(resolveOptions(options));
}

/**
 * Does what {@linkcode validateSecurity} does, with options that were checked before.
 *
 * @throws {TransportError} `TlsRequired`, `MtlsRequired` or `NodeIdVerificationRequired`.
 */
export function checkSecurity(options: ResolvedOptions): void {
  const { security } = options;
  switch (security) {
    case "strict":
      return checkStrict(options.tls);
    case "permissive":
      return checkPermissive(options.tls, options.listen.length > 0);
    case "development":
    case "legacy":
      return;
    default:
      // Options that never went through resolveOptions; no unknown mode may count as a weak one.
      throw new TypeError(`Cannot check the security of mode ${String(security satisfies never)}`);
  }
}

function checkStrict(tls: ResolvedTls | undefined): void {
  const missing = missingMaterial(tls, ["cert", "key", "ca"]);
  if (missing !== undefined) {
    throw new TransportError("TlsRequired", `Cannot use strict security: ${missing}`);
  }
  if (tls?.requireClientAuth !== true) {
    throw new TransportError(
      "MtlsRequired",
      "Cannot use strict security: tls.requireClientAuth is false",
    );
  }
  if (tls.nodeIdVerification === "None") {
    throw new TransportError(
      "NodeIdVerificationRequired",
      'Cannot use strict security: tls.nodeIdVerification is "None"',
    );
  }
}

function checkPermissive(tls: ResolvedTls | undefined, listens: boolean): void {
  const missing = missingMaterial(tls, listens ? ["cert", "key", "ca"] : ["ca"]);
  if (missing === undefined) return;
  const which = listens ? "permissive security with listen" : "permissive security";
  const recovery = `give ${listens ? "tls.cert, tls.key and tls.ca" : "tls.ca"}, ` +
    "or choose another security mode";
  throw new TransportError("TlsRequired", `Cannot use ${which}: ${missing}`, { recovery });
}

type Material = "cert" | "key" | "ca";
const PATHS = { cert: "certPath", key: "keyPath", ca: "caCertPath" } as const;

/** "tls.key or tls.keyPath and tls.ca or tls.caCertPath are missing"; undefined where nothing is. */
function missingMaterial(
  tls: ResolvedTls | undefined,
  needed: readonly Material[],
): string | undefined {
  const missing = needed
    .filter((name) => tls?.[name] === undefined && tls?.[PATHS[name]] === undefined)
    .map((name) => `tls.${name} or tls.${PATHS[name]}`);
  if (missing.length === 0) return undefined;
  const last = missing.pop() ?? "";
  return missing.length === 0
    ? `${last} is missing`
    : `${missing.join(", ")} and ${last} are missing`;
}
