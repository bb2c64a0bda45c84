/**
 * Checks the names and addresses in the options of an endpoint.
 *
 * @module
 */

import { DEFAULT_OPTIONS } from "./default_options.ts";
import {
  isName,
  joinEntry,
  NAME_DEMAND,
  OptionReader,
  type OptionSource,
} from "./option_reader.ts";
import type { PeerAddress, ResolvedOptions } from "./options.ts";
import { canBeTold, MAX_TOLD_BYTES } from "./transport/advertise.ts";
import {
  canonicalAddress,
  isDialable,
  PORT_ZERO_PROBLEM,
  readAddress,
} from "./transport/address.ts";

/** The most routes that an endpoint keeps. */
export const MAX_ROUTES: number = 65_536;

/** The most addresses that a peer may have. */
export const MAX_ADDRESSES: number = 16;

const PEER_KEYS = ["nodeId", "address"];

/** Checks `nodeId`, which is required. */
export function resolveNodeId(reader: OptionReader): string {
  const value = reader.raw("nodeId");
  if (value === undefined) throw reader.error("nodeId", "is required");
  if (!isName(value)) throw reader.wrongValue("nodeId", NAME_DEMAND, value);
  return value;
}

/** Checks `listen`; the addresses come out with their scheme. */
export function resolveListen(top: OptionReader): readonly string[] {
  const value = top.raw("listen");
  if (value === undefined) return DEFAULT_OPTIONS.listen;
  if (typeof value === "string") return Object.freeze([resolveAddress(top, "listen", value, true)]);
  if (!Array.isArray(value)) {
    throw top.wrongValue("listen", "must be an address or a list of addresses", value);
  }
  return Object.freeze(
    Array.from(value, (item, index) => resolveAddress(top, `listen[${index}]`, item, true)),
  );
}

/** Checks `advertise`. */
export function resolveAdvertise(top: OptionReader): readonly string[] | undefined {
  const value = top.raw("advertise");
  if (value === undefined) return undefined;
  if (!Array.isArray(value) || value.length > MAX_ADDRESSES) {
    throw top.wrongValue(
      "advertise",
      `must be a list of at most ${MAX_ADDRESSES} addresses`,
      value,
    );
  }
  const addresses = Array.from(value, (item: unknown, index) => {
    const address = resolveAddress(top, `advertise[${index}]`, item, false);
    if (canBeTold(address)) return address;
    const demand = "must have at most 200 characters, all of printable ASCII";
    throw top.wrongValue(`advertise[${index}]`, demand, item);
  });
  const chars = addresses.reduce((sum, address) => sum + address.length, 0);
  if (chars > MAX_TOLD_BYTES) {
    const demand = `must have at most ${MAX_TOLD_BYTES} characters together`;
    throw top.error("advertise", `${demand}, got ${chars}`);
  }
  return Object.freeze(addresses);
}

/** Checks `peers`. */
export function resolvePeers(
  top: OptionReader,
  source: OptionSource,
): readonly Readonly<PeerAddress>[] {
  const value = top.raw("peers");
  if (value === undefined) return DEFAULT_OPTIONS.peers;
  if (!Array.isArray(value)) throw top.wrongValue("peers", "must be a list of peers", value);
  return Object.freeze(
    Array.from(value, (item, index) => resolvePeer(item, `peers[${index}]`, source)),
  );
}

/** Checks `routes`. */
export function resolveRoutes(top: OptionReader, source: OptionSource): ResolvedOptions["routes"] {
  const entries = top.entries("routes", MAX_ROUTES);
  if (entries === undefined) return DEFAULT_OPTIONS.routes;
  // Not by assignment: a recipient may be called "__proto__".
  return Object.freeze(Object.fromEntries(
    entries.map(([name, value]) => [name, resolvePeer(value, joinEntry("routes", name), source)]),
  ));
}

/** Checks a node id with its address, of which neither may be missing; `path` says where it stands. */
export function resolvePeer(
  value: unknown,
  path: string,
  source: OptionSource,
): Readonly<PeerAddress> {
  const reader = new OptionReader(value, path, PEER_KEYS, source);
  const nodeId = resolveNodeId(reader);
  return Object.freeze({ nodeId, address: resolveAddresses(reader, reader.raw("address")) });
}

/** The addresses of a peer, at least one. */
export function addressesOf({ address }: PeerAddress): readonly string[] {
  return typeof address === "string" ? [address] : address;
}

function resolveAddresses(reader: OptionReader, value: unknown): string | readonly string[] {
  if (!Array.isArray(value)) return resolveAddress(reader, "address", value, false);
  if (value.length === 0 || value.length > MAX_ADDRESSES) {
    throw reader.error("address", `must be one address, or 1 to ${MAX_ADDRESSES} of them`);
  }
  const addresses = Array.from(
    value,
    (item, index) => resolveAddress(reader, `address[${index}]`, item, false),
  );
  const distinct = [...new Set(addresses)];
  return distinct.length === 1 ? distinct[0]! : Object.freeze(distinct);
}

function resolveAddress(reader: OptionReader, key: string, value: unknown, listens: boolean) {
  if (value === undefined) throw reader.error(key, "is required");
  const address = readAddress(value);
  if (typeof address === "string") throw reader.error(key, address);
  if (!listens && !isDialable(address)) throw reader.error(key, PORT_ZERO_PROBLEM);
  return canonicalAddress(address);
}
