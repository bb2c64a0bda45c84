/**
 * The senders of datagrams, by what they are told apart and counted together.
 *
 * @module
 */

/** Groups of an IPv6 address that name the network of a host. */
const NETWORK_GROUPS = 4;
const GROUPS = 8;

/** Scheme and host of an address with a port. */
export function hostOf(address: string): string {
  return address.slice(0, address.lastIndexOf(":"));
}

/** The scheme of an address. */
export function schemeOf(address: string): string {
  return address.slice(0, address.indexOf(":"));
}

/** A tag as the key of a map. */
export function keyOf(tag: Uint8Array): string {
  return String.fromCharCode(...tag);
}

/**
 * Scheme and host of an address with a port; of an IPv6 address its first 64 bits: who has one has
 * all that begin so.
 */
export function networkOf(address: string): string {
  const host = hostOf(address);
  const start = host.indexOf("[");
  if (start < 0 || !host.endsWith("]")) return host;
  const groups = groupsOf(host.slice(start + 1, -1));
  return `${host.slice(0, start)}[${groups.slice(0, NETWORK_GROUPS).join(":")}::/64]`;
}

/** The groups of an IPv6 address, each in its shortest form. */
function groupsOf(text: string): string[] {
  const [address = ""] = text.split("%");
  const [before = "", after] = address.split("::");
  const first = splitGroups(before);
  const last = splitGroups(after ?? "");
  const missing = after === undefined ? 0 : Math.max(0, GROUPS - first.length - last.length);
  return [...first, ...new Array<string>(missing).fill("0"), ...last];
}

function splitGroups(text: string): string[] {
  if (text === "") return [];
  return text.split(":").flatMap((group) => {
    // The last 32 bits may stand as an IPv4 address.
    if (group.includes(".")) return [group, ""];
    return [group.toLowerCase().replace(/^0+(?=.)/, "")];
  });
}
