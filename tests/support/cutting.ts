/** Transports whose links a test can cut, and that it can switch off. */

import { type Link, type Transport, TransportError } from "../../mod.ts";

/** Wraps the transports of one endpoint. */
export class Cutting {
  readonly #links = new Map<string, Set<Link>>();
  readonly #off = new Set<string>();

  /** The same transport, under control. */
  wrap(transport: Transport): Transport {
    const { scheme } = transport;
    const links = new Set<Link>();
    this.#links.set(scheme, links);
    return {
      ...transport,
      scheme,
      capabilities: transport.capabilities,
      dial: async (address, options) => {
        if (this.#off.has(scheme)) {
          throw new TransportError("ConnectionFailed", `Cannot connect to ${address}: it is off`);
        }
        const link = await transport.dial(address, options);
        links.add(link);
        return link;
      },
      listen: (address, options) => transport.listen(address, options),
    };
  }

  /** Links that were dialed and not cut. */
  get links(): number {
    return [...this.#links.values()].reduce((sum, links) => sum + links.size, 0);
  }

  /** Closes every link of a scheme, or of all, at once and without a word. */
  cut(scheme?: string): number {
    let cut = 0;
    for (const [name, links] of this.#links) {
      if (scheme !== undefined && name !== scheme) continue;
      for (const link of links) {
        link.close();
        cut++;
      }
      links.clear();
    }
    return cut;
  }

  /** From now on nothing is dialed by this scheme. */
  switchOff(scheme: string): void {
    this.#off.add(scheme);
    this.cut(scheme);
  }

  /** It may be dialed again. */
  switchOn(scheme: string): void {
    this.#off.delete(scheme);
  }
}
