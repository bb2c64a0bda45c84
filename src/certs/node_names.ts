/**
 * What stands behind `hawser certs` on the command line: node ids and the hosts beside them.
 *
 * @module
 */

import { isIP } from "node:net";
import { quote } from "../protocol/text.ts";
import { UsageError } from "./usage_error.ts";

/** A node that is to have a certificate. */
export interface NodeNames {
  /** The common name and the first DNS name; also names the files. */
  readonly nodeId: string;
  /** Further DNS names. */
  readonly dnsNames: readonly string[];
  /** IP addresses, version 4 or 6. */
  readonly ipAddresses: readonly string[];
}

const NODE_ID = /^[!-~]{1,255}$/;
/** Labels of letters, digits, hyphens and underscores; no wildcard, which would be a name for many. */
const HOST_NAME =
  /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/i;

/**
 * Reads `node1` or `node1=db1.example.com,10.0.0.5`.
 *
 * @throws {UsageError} Where the node id or a host can't be used; says why.
 */
export function parseNodeNames(argument: string): NodeNames {
  const equals = argument.indexOf("=");
  const nodeId = equals < 0 ? argument : argument.slice(0, equals);
  const hosts = equals < 0 ? [] : argument.slice(equals + 1).split(",");
  const problem = nodeIdProblem(nodeId);
  if (problem !== undefined) throw cannotUse(nodeId, problem);
  const wrong = hosts.find((host) => !isHost(host));
  if (wrong !== undefined) {
    throw cannotUse(nodeId, `${quote(wrong)} is neither a host name nor an IP address`);
  }
  return {
    nodeId,
    dnsNames: hosts.filter((host) => isIP(host) === 0),
    ipAddresses: hosts.filter((host) => isIP(host) !== 0),
  };
}

/**
 * Checks nodes that are made together.
 *
 * @throws {UsageError} Where a node is there twice, or a host of one is the id of another: verified
 * by SubjectAltName, the one could pass for the other.
 */
export function checkTogether(nodes: readonly NodeNames[]): void {
  // File systems that ignore case would make one file of two.
  const ids = new Set<string>();
  for (const { nodeId } of nodes) {
    const id = nodeId.toLowerCase();
    if (ids.has(id)) throw cannotUse(nodeId, "it is there twice");
    ids.add(id);
  }
  for (const { nodeId, dnsNames } of nodes) {
    const other = dnsNames.find((name) => name !== nodeId && ids.has(name.toLowerCase()));
    if (other !== undefined) {
      throw cannotUse(nodeId, `its host ${quote(other)} is the id of another node`);
    }
  }
}

function nodeIdProblem(nodeId: string): string | undefined {
  if (!NODE_ID.test(nodeId)) {
    return "a node id is 1 to 255 bytes of printable ASCII without spaces";
  }
  if (/[/\\]/.test(nodeId)) return "the id names files, so it can't have a path separator";
  if (nodeId.startsWith(".")) return "the id names files, so it can't begin with a dot";
  if (nodeId.toLowerCase() === "ca") return "the authority's files have that name";
  return undefined;
}

function isHost(host: string): boolean {
  // A zone ("fe80::1%eth0") is of one machine only, and has no place in a certificate.
  if (isIP(host) !== 0) return !host.includes("%");
  // All digits and dots but no address is a mistyped one.
  return HOST_NAME.test(host) && !/^[\d.]+$/.test(host);
}

function cannotUse(nodeId: string, problem: string): UsageError {
  return new UsageError(`Cannot make a certificate for ${quote(nodeId)}: ${problem}`);
}
