/**
 * What is made of TLS settings once instead of for each connection.
 *
 * @module
 */

import type { LinkTls } from "../transport/transport.ts";

interface Made<T> extends Pick<LinkTls, "cert" | "key" | "ca"> {
  readonly value: T;
}

/**
 * Keeps what was made of the certificates and the key of some settings: for as long as these
 * settings are in use, for no others, and only until one of the texts changes. Nothing that depends
 * on more than those three texts belongs here, nor anything that a peer has sent.
 */
export class TlsMemo<T> {
  readonly #made = new WeakMap<LinkTls, Made<T>>();

  /** What was made of these settings before, or what `make` makes of them now; what throws is not kept. */
  get(tls: LinkTls, make: (tls: LinkTls) => T): T {
    const { cert, key, ca } = tls;
    const made = this.#made.get(tls);
    if (made !== undefined && made.cert === cert && made.key === key && made.ca === ca) {
      return made.value;
    }
    const value = make(tls);
    this.#made.set(tls, { cert, key, ca, value });
    return value;
  }
}
