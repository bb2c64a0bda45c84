/**
 * Addresses of nodes: `tcp://host:port`, or `host:port`, which means tcp; `ws://host:port/path`,
 * `unix:/path/to.sock`, `memory://name`.
 *
 * @module
 */

import { ConfigError } from "../errors.ts";
import { showValue } from "../show_value.ts";

/** The parts of an address. */
export interface Address {
  /** The transport's scheme in lower case, without "://". Whether it exists is the registry's matter. */
  readonly scheme: string;
  /** A host name, an IPv4 address, or an IPv6 address without its brackets; "" for `unix:`. */
  readonly host: string;
  /** 0 to 65535; 0 for `unix:`. */
  readonly port: number;
  /** The path of `ws:`, `wss:` and `wt:`, from its slash on, or that of a Unix socket; "" elsewhere. */
  readonly path: string;
}

/** The scheme of an address that names none. */
const DEFAULT_SCHEME = "tcp";
const MAX_PORT = 65535;
/** The ports of schemes that may leave it out. */
const DEFAULT_PORTS: Readonly<Record<string, number>> = {
  ws: 80,
  wss: 443,
  wt: 443,
  memory: 0,
};
/** Schemes whose addresses may have a path behind the port, and the one that they have without. */
const DEFAULT_PATHS: ReadonlyMap<string, string> = new Map([
  ["ws", "/"],
  ["wss", "/"],
  ["wt", "/hawser"],
]);
/** Schemes that have no port to dial. */
const PORTLESS: ReadonlySet<string> = new Set(["unix", "memory"]);
/** What `sockaddr_un` takes on every system (104 bytes on some), its final zero aside. */
const MAX_SOCKET_PATH_BYTES = 103;
/** RFC 1035, section 2.3.4. */
const MAX_HOST_CHARS = 253;
/** Why an address to dial is refused when its port is 0. */
export const PORT_ZERO_PROBLEM: string =
  "must not have port 0, which asks a listener for a free port";
/** Longer than any scheme, host and port together; what is longer is refused before it is looked at. */
const MAX_ADDRESS_CHARS = 400;

/**
 * Takes an address apart. Port 0 is allowed: it asks a listener for a free port.
 *
 * @param text `"tcp://host:port"`, `"host:port"`, `"[::1]:9100"`, `"wss://host/path"`, `"unix:/a.sock"`.
 * @param path What a {@linkcode ConfigError} names as the culprit.
 * @throws {ConfigError} Where the text is anything else: no port, spaces, user info, a path, an
 * empty host, an IPv6 address without brackets.
 *
 * @example
 * ```ts ignore
 * parseAddress("[::1]:9100"); // { scheme: "tcp", host: "::1", port: 9100, path: "" }
 * ```
 */
export function parseAddress(text: string, path: string = "address"): Address {
  const result = readAddress(text);
  if (typeof result === "string") throw new ConfigError(path, result);
  return result;
}

/**
 * Takes apart an address to dial, as {@linkcode parseAddress} does, but refuses port 0.
 *
 * @throws {ConfigError} Also where the port is 0.
 */
export function parseDialAddress(text: string, path: string = "address"): Address {
  const address = parseAddress(text, path);
  if (!isDialable(address)) throw new ConfigError(path, PORT_ZERO_PROBLEM);
  return address;
}

/** Whether an address can be dialed, and not only be listened on. */
export function isDialable({ scheme, port }: Address): boolean {
  return port !== 0 || PORTLESS.has(scheme);
}

/**
 * Reads an address that may be anything at all. Returns its parts, or what is wrong with it, for
 * callers that word the error themselves.
 */
export function readAddress(value: unknown): Address | string {
  if (typeof value !== "string") {
    return `must be a text such as "tcp://host:port", got ${showValue(value)}`;
  }
  if (value.length > MAX_ADDRESS_CHARS) return "is too long for an address";
  // Not quoted: what stands before the @ may be a password.
  if (value.includes("@") && !/^unix:/i.test(value)) return "must not contain user info";
  const result = splitAddress(value);
  return typeof result === "string" ? `${result}, got ${showValue(value)}` : result;
}

/**
 * Puts an address together; an IPv6 host gets brackets. The inverse of {@linkcode parseAddress},
 * with `unix:` for a path of its own.
 */
export function formatAddress(scheme: string, host: string, port: number, path = ""): string {
  if (scheme === "unix") return `unix:${path}`;
  const portPart = scheme === "memory" && port === 0 ? "" : `:${port}`;
  // Joined, for what is put together otherwise keeps all its parts, and every link has two of these.
  return [scheme, "://", host.includes(":") ? `[${host}]` : host, portPart, path].join("");
}

/** {@linkcode formatAddress} of the parts that {@linkcode parseAddress} gave. */
export function canonicalAddress({ scheme, host, port, path }: Address): string {
  return formatAddress(scheme, host, port, path);
}

function splitAddress(text: string): Address | string {
  if (/\s/.test(text)) return "must not contain spaces";
  if (/^unix:/i.test(text)) return splitUnix(text.slice("unix:".length));
  const schemeEnd = text.indexOf("://");
  const scheme = schemeEnd < 0 ? DEFAULT_SCHEME : text.slice(0, schemeEnd).toLowerCase();
  if (!/^[a-z][a-z0-9+.-]*$/.test(scheme)) return "must start with a scheme or a host";
  let authority = schemeEnd < 0 ? text : text.slice(schemeEnd + 3);
  let path = "";
  const defaultPath = DEFAULT_PATHS.get(scheme);
  if (defaultPath !== undefined) {
    const pathStart = authority.indexOf("/");
    path = pathStart < 0 ? defaultPath : authority.slice(pathStart);
    if (pathStart >= 0) authority = authority.slice(0, pathStart);
    if (/[^!-~]|[?#\\]/.test(path)) return "must have a plain path, without a query";
  }
  if (/[/?#\\]/.test(authority)) return "must not contain a path";

  const portStart = authority.lastIndexOf(":");
  const implied = DEFAULT_PORTS[scheme];
  if (portStart < 0 || authority.endsWith("]")) {
    if (implied === undefined) return 'must end in ":port"';
    authority = `${authority}:${implied}`;
  }
  const hostEnd = authority.lastIndexOf(":");
  const host = authority.slice(0, hostEnd);
  const problem = problemOfHost(host);
  if (problem !== undefined) return problem;
  const port = parsePort(authority.slice(hostEnd + 1));
  if (port === undefined) return `must end in a port between 0 and ${MAX_PORT}`;
  return { scheme, host: host.startsWith("[") ? host.slice(1, -1) : host, port, path };
}

/** What stands behind `unix:`: a path, before which `//` may stand as in other URLs. */
function splitUnix(text: string): Address | string {
  const path = text.startsWith("///") ? text.slice(2) : text;
  if (path === "" || path.startsWith("//")) return "must name the path of a Unix socket";
  // deno-lint-ignore no-control-regex
  if (/[\0-\x1f\x7f]/.test(path)) return "must not contain control characters";
  if (new TextEncoder().encode(path).length > MAX_SOCKET_PATH_BYTES) {
    return `must have a socket path of at most ${MAX_SOCKET_PATH_BYTES} bytes`;
  }
  return { scheme: "unix", host: "", port: 0, path };
}

function parsePort(text: string): number | undefined {
  if (!/^(0|[1-9]\d{0,4})$/.test(text)) return undefined;
  const port = Number(text);
  return port <= MAX_PORT ? port : undefined;
}

function problemOfHost(host: string): string | undefined {
  if (host === "" || host === "[]") return "must name a host";
  if (host.startsWith("[")) {
    return host.endsWith("]") && isIpv6(host.slice(1, -1))
      ? undefined
      : "must have an IPv6 address between the brackets";
  }
  if (host.includes(":")) return 'must have brackets around an IPv6 address ("[::1]:9100")';
  return isIpv4(host) || isHostName(host) ? undefined : "must have a valid host name or IP address";
}

function isIpv4(text: string): boolean {
  // No leading zeros: some resolvers read them as octal.
  return /^(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}$/.test(text) &&
    text.split(".").every((part) => Number(part) <= 255);
}

/** RFC 1123 names, plus the underscore that container networks use. */
function isHostName(text: string): boolean {
  const name = text.endsWith(".") ? text.slice(0, -1) : text;
  if (name.length > MAX_HOST_CHARS) return false;
  const labels = name.split(".");
  // A number at the end is half an IPv4 address, which resolvers complete each in its own way.
  if (/^(\d+|0x[0-9a-f]*)$/i.test(labels.at(-1) ?? "")) return false;
  return labels.every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/i.test(label));
}

function isIpv6(text: string): boolean {
  const [address = "", zone, ...rest] = text.split("%");
  if (rest.length > 0 || (zone !== undefined && !/^[a-z0-9._-]{1,32}$/i.test(zone))) return false;
  const halves = address.split("::");
  if (halves.length > 2) return false;
  const groups = halves.flatMap((half) => half === "" ? [] : half.split(":"));
  const last = groups.at(-1) ?? "";
  // An IPv4 address may stand for the last two groups, but only at the very end.
  const dotted = isIpv4(last) && address.endsWith(last);
  const count = groups.length + (dotted ? 1 : 0);
  const valid = groups.every((group, index) =>
    (dotted && index === groups.length - 1) || /^[0-9a-f]{1,4}$/i.test(group)
  );
  return valid && (halves.length === 2 ? count <= 7 : count === 8);
}
