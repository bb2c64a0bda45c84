/**
 * What the paths of Unix sockets are to `node:net`.
 *
 * @module
 */

import process from "node:process";
import { ConfigError, TransportError } from "../errors.ts";
import type { ListenOptions } from "../transport/transport.ts";
import type { SocketAddress } from "./sockets.ts";

/** Whom the connections of Unix sockets are counted under: they all come from this machine. */
const HOST = "unix";

/** Why there are no Unix sockets here; undefined: there are. */
export const UNIX_UNAVAILABLE: string | undefined = process.platform === "win32"
  ? "Windows has no Unix sockets that all runtimes can use"
  : undefined;

/** The address of a Unix socket, whose path is known to have one. */
export interface UnixAddress extends SocketAddress {
  readonly path: string;
  /** Whether the name is in Linux's abstract namespace, and there is no file. */
  readonly abstract: boolean;
}

/**
 * Makes the address of a path; `@name` is the abstract name of Linux. The two sides of a connection
 * are `url` and, for the dialer, which has no address, `url#number`.
 */
export function unixAddress(scheme: string, path: string, url: string): UnixAddress {
  const abstract = path.startsWith("@");
  return {
    scheme,
    host: HOST,
    port: 0,
    path: abstract ? `\0${path.slice(1)}` : path,
    abstract,
    formatUrl: (_, port) => port === 0 ? url : `${url}#${port}`,
  };
}

/** Refuses what this system does not have, and what the options of a listener ask for in vain. */
export function checkUnixAddress(
  { abstract, path, host, formatUrl }: UnixAddress,
  options: Pick<ListenOptions, "unixMode" | "reusePort"> = {},
): void {
  const url = formatUrl(host, 0);
  if (options.reusePort) throw unsupported(`share ${url}`, "Unix sockets have one listener each");
  if (!abstract) return;
  if (process.platform !== "linux") throw unsupported(`use ${url}`, "only Linux has such names");
  if (path.length === 1) throw new ConfigError("address", `must name a socket, got "${url}"`);
  if (options.unixMode === undefined) return;
  throw new ConfigError("unixMode", `must be left out for ${url}, which has no file`);
}

function unsupported(action: string, why: string): TransportError {
  return new TransportError("UnsupportedProtocol", `Cannot ${action}: ${why}`, {
    recovery: "choose another address",
  });
}
